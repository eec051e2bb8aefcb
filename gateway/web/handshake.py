"""uvicorn's WebSocket protocol, with a refused handshake counted as an answered one, an unanswered
one refused politely at the end, reading that goes on while a message is taken, and nothing kept
without limit for a client that sends what costs it nothing."""

from __future__ import annotations

import json
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request

from gateway.admission.policy import DRAINING
from gateway.telemetry.metrics import CLOSED, REFUSED
from gateway.web.websocket import WRITE_EXTENSION

READ_AHEAD_MESSAGES = 2
"""Of a connection, received and not taken; beyond them it is not read from."""


class Handshake(WebSocketsSansIOProtocol):
    """uvicorn 0.54 forgets that a handshake answered by an HTTP response (our 503 and 403) is over,
    and logs each as the error "ASGI callable returned without completing handshake"."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._begun = bytearray()
        """A message in several frames, as far as it has come."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: Any = self.scope["extensions"]
            extensions[WRITE_EXTENSION] = self.write_text

    def write_text(self, text: str) -> bool:
        """Send at once. False: the transport's buffer is full, or the connection is not open."""
        if not self.writable.is_set() or self.close_sent or self.disconnected:
            return False
        if not self.handshake_complete or self.transport.is_closing():
            return False
        try:
            self.conn.send_text(text.encode())
        except InvalidState:
            return False
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        refused = message["type"] == "websocket.http.response.body"
        if refused and not message.get("more_body", False):
            self.handshake_complete = True

    def shutdown(self) -> None:
        """uvicorn answers 500 to who is not let in yet when it ends, and clients take that for a
        fault that trying again does not help."""
        if not (self.close_sent or self.handshake_complete or self.initial_response):
            self.stop_keepalive()
            answer = self.conn.reject(503, json.dumps(DRAINING.body()))
            del answer.headers["Content-Type"]  # They may stand there more than once.
            answer.headers["Content-Type"] = "application/json"
            answer.headers["Retry-After"] = str(DRAINING.retry_after_s)
            self.conn.send_response(answer)
            REFUSED.labels(DRAINING.code).inc()
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            return
        super().shutdown()

    def send_receive_event_to_app(self) -> None:
        """uvicorn stops reading at every message until it is taken, which makes two system calls
        more for each, a tenth of the gateway's time. Here only a queue stops it."""
        if self.read_paused or self.queue.qsize() + 1 >= READ_AHEAD_MESSAGES:
            super().send_receive_event_to_app()
            return
        self.read_paused = True  # So that it does not pause.
        super().send_receive_event_to_app()
        self.read_paused = False

    def handle_cont(self, event: Frame) -> None:
        """uvicorn keeps the frames of a message until the last. Their bytes are limited, but not
        their number, and empty ones are frames, too."""
        if self.frames:
            self._begun += self.frames.pop()
        self._begun += event.data
        if event.fin:
            self.frames, self._begun = [bytes(self._begun)], bytearray()
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Pongs for a client that does not read would pile up here. It need not get one for each
        ping (RFC 6455, 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_parser_exception(self) -> None:
        """The client broke the protocol, or sent too much."""
        if self.conn.close_sent is not None:
            CLOSED.labels(self.conn.close_sent.code).inc()
        super().handle_parser_exception()

    def keepalive_timeout(self) -> None:
        if not (self.close_sent or self.transport.is_closing()):
            CLOSED.labels(1011).inc()
        super().keepalive_timeout()
