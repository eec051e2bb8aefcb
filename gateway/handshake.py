"""uvicorn's WebSocket protocol, with a refused handshake counted as an answered one, an unanswered
one refused politely at the end, and reading that goes on while a message is taken."""

from __future__ import annotations

import json

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.admission import DRAINING
from gateway.metrics import REFUSED

READ_AHEAD_MESSAGES = 2
"""Of a connection, received and not taken; beyond them it is not read from."""


class Handshake(WebSocketsSansIOProtocol):
    """uvicorn 0.54 forgets that a handshake answered by an HTTP response (our 503 and 403) is over,
    and logs each as the error "ASGI callable returned without completing handshake"."""

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
