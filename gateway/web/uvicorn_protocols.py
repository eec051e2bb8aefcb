"""uvicorn's HTTP and WebSocket protocols with limits that uvicorn does not have.

``uvicorn.Config`` takes protocol classes, but these override private methods of uvicorn. So no
other module depends on them, pyproject.toml bounds uvicorn's version, and
tests/gateway/web/test_uvicorn_protocols.py fails if a method they rely on has changed.

* HTTP: a deadline and a size limit for a request's head. uvicorn's only deadline is between
  requests (``timeout_keep_alive``), so a client that sends a header byte by byte holds its
  connection for ever (Slowloris).
* WebSocket: uvicorn logs each handshake that the application answers with HTTP as an error, answers
  500 to unfinished handshakes at shutdown, pauses reading at each message, keeps fragments and
  pongs without limit, and limits the size of a message but not the sum of all connections. It also
  regards clients as lost if it does not read their pongs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, ClassVar

import h11
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from gateway.admission.policy import DRAINING
from gateway.telemetry.metrics import BAD_REQUESTS, CLOSED, LATE_HEADS, REFUSED
from gateway.web.errors import refused
from gateway.web.large_messages import LargeMessages
from gateway.web.websocket import LARGE_EXTENSION, WRITE_EXTENSION

HEAD_S_MAX = 10.0
"""From the connection, or the first byte of a later request, to the end of its headers. Then the
connection is closed, with 408 if any byte arrived."""
HEAD_BYTES_MAX = 16_384
"""A request's line and headers. Beyond it (and a piece) 400, and the connection is closed."""
PIECE_BYTES = 4_096
READ_BYTES_MAX = 32_768
"""Bytes read from a socket at once. asyncio allocates 256 KiB for every read and then truncates
them, which fragments the heap at 2,500 chunks a second. This is below the size for which malloc
makes a mapping (``runtime.memory.LARGE_BYTES``), which costs two system calls."""
READ_AHEAD_MESSAGES = 2
"""Messages of a connection that are received and not taken; then reading pauses."""
SMALL_MESSAGE_BYTES = 3 << 19
"""Once ``allow_large`` was called, larger messages are accepted. Before that a larger one waits for
the session, or closes the connection with 1009 if the client has sent no start."""
LINGER_S = 2.0
"""Longest time from the close frame after an error to the end of the connection."""
LARGE_CHECK_S = 30.0
LARGE_BYTES_PER_S_MIN = 8_192
"""Minimum rate of a large message, checked once in ``LARGE_CHECK_S``; a slower one closes the
connection with 1008, because it occupies memory that others wait for."""
NOT_UTF_8 = "Invalid UTF-8 sequence received from client."
"""uvicorn's error message for a text that is not UTF-8. It closes the connection with 1007."""
_BAD_UPGRADE = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class HttpProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for each request's head.

    Between requests uvicorn's keep-alive timeout applies. The rest of a request that is already
    answered has the deadline of a head, because its first byte ends the keep-alive timeout.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._received_anything = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # Only asyncio's own transports have it.
            transport.max_size = READ_BYTES_MAX
        self._deadline = self.loop.call_later(HEAD_S_MAX, self._close_late)

    def data_received(self, data: bytes) -> None:
        self._received_anything = True
        # h11 measures only heads that are incomplete, so a long head in one piece would pass.
        while data and self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            super().data_received(data[:PIECE_BYTES])
            data = data[PIECE_BYTES:]
        # Neither closing nor handed over to the WebSocket protocol. A client has nothing to send
        # before the answer to its upgrade.
        transport = self.transport
        if data and not transport.is_closing() and transport.get_protocol() is self:
            super().data_received(data)
        if not (self.conn.their_state is h11.IDLE or self._is_answered):
            self._cancel_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S_MAX, self._close_late)

    def send_400_response(self, msg: str) -> None:
        BAD_REQUESTS.labels("not_http").inc()
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    @property
    def _is_answered(self) -> bool:
        """The answer has been sent, while the body of the request is still arriving."""
        arriving = self.conn.their_state is h11.SEND_BODY
        return arriving and self.cycle is not None and self.cycle.response_complete

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_late(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        LATE_HEADS.inc()
        if self._received_anything and not self._is_answered:
            self.transport.write(_LATE)
        self.transport.close()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The WebSocket protocol with bounded memory, reading that does not pause at each message, and
    handshakes that end properly."""

    large: ClassVar[LargeMessages]
    """Memory of the large messages of all connections."""

    @classmethod
    def sharing(cls, large: LargeMessages) -> type[WebSocketProtocol]:
        """Return the class for connections that share this memory."""
        return type(cls.__name__, (cls,), {"large": large})

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._fragments = bytearray()
        """The received part of a fragmented message."""
        self._sizes: deque[int] = deque()
        """Sizes of the messages in the queue, after that of the message being taken."""
        self._taking = False
        self._has_request = False
        self._large_allowed = False
        self._holds = False
        self._lingers = False
        self._large_paused = False
        self._progress: asyncio.TimerHandle | None = None
        self._received_before = 0

    def handle_connect(self, event: Request) -> None:
        """Offer ``write_text`` to the application as an extension of the ASGI scope."""
        self._has_request = True
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: Any = self.scope["extensions"]
            extensions[WRITE_EXTENSION] = self.write_text
            extensions[LARGE_EXTENSION] = self.allow_large

    def write_text(self, text: str) -> bool:
        """Send ``text`` at once. False: the write buffer is full, or the connection is not open."""
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
        """uvicorn does not mark a handshake that was answered with HTTP (503, 403) as complete, and
        logs "ASGI callable returned without completing handshake" as an error."""
        await super().send(message)
        refused = message["type"] == "websocket.http.response.body"
        if refused and not message.get("more_body", False):
            self.handshake_complete = True

    def shutdown(self) -> None:
        """uvicorn answers unfinished handshakes with 500, which clients take for permanent. Answer
        503 with ``Retry-After``."""
        if not self._has_request:
            self.transport.close()
            return
        if not (self.close_sent or self.handshake_complete or self.initial_response):
            self.stop_keepalive()
            refusal = refused(self.scope["path"], DRAINING)
            answer = self.conn.reject(refusal.status_code, bytes(refusal.body).decode())
            del answer.headers["Content-Type"]  # There may be several.
            for name in ("Content-Type", "Retry-After"):
                answer.headers[name] = refusal.headers[name]
            self.conn.send_response(answer)
            REFUSED.labels(DRAINING.code).inc()
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            return
        super().shutdown()

    def send_receive_event_to_app(self) -> None:
        """uvicorn pauses reading until each message is taken. That costs two system calls a
        message, a tenth of the gateway's time. Pause only for a full queue."""
        if not self.close_sent:
            self._sizes.append(sum(map(len, self.frames)))
        if self.read_paused or self.queue.qsize() + 1 >= READ_AHEAD_MESSAGES:
            super().send_receive_event_to_app()
            return
        self.read_paused = True  # So that it does not pause.
        super().send_receive_event_to_app()
        self.read_paused = False

    # ------------------------------------------------------------------------------ large messages

    def allow_large(self) -> None:
        """The client may send large messages from now on."""
        if not self._large_allowed:
            self._large_allowed = True
            self._hold()

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        super().data_received(data)
        if not self._has_request:
            # ``HttpProtocol`` hands over whole requests. ``websockets`` does not take one with a
            # body, or with long or many headers, for which uvicorn has no answer.
            BAD_REQUESTS.labels("not_http").inc()
            self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_UPGRADE)
            self.transport.close()
        elif not self._lingers and (self._holds or self._incomplete_bytes > SMALL_MESSAGE_BYTES):
            self._hold()

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        super().connection_lost(exc)

    async def receive(self) -> ASGIReceiveEvent:
        if self._taking:  # The application has processed the previous message.
            self._sizes.popleft()
            self._taking = False
            if self._holds:
                self._hold()
        if self._large_paused and not self._large_allowed and self.queue.empty():
            self._refuse_large()
        message = await super().receive()
        self._taking = message["type"] == "websocket.receive"
        if self._large_paused:
            self.transport.pause_reading()
        return message

    def resume_large(self) -> None:
        self._large_paused = False
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _release(self) -> None:
        """Nothing more of the client is taken."""
        self._holds = self._large_paused = False
        self._fragments.clear()
        self.large.hold(self, 0)
        self._stop_progress()

    @property
    def _incomplete_bytes(self) -> int:
        """Received bytes of the message that is not complete yet."""
        fragments = len(self._fragments) + sum(map(len, self.frames))
        return fragments + len(self.conn.reader.buffer)

    def _hold(self) -> None:
        """Count the bytes that this connection holds, and pause or resume reading."""
        incomplete = self._incomplete_bytes
        byte_count = incomplete + sum(self._sizes)
        self._holds = byte_count > SMALL_MESSAGE_BYTES
        may_read = self.large.hold(self, byte_count if self._holds else 0)
        if incomplete > SMALL_MESSAGE_BYTES and not self._large_allowed:
            may_read = False
            # The application has taken every message, and waits for the client.
            if not self._sizes and self.handshake_complete and not self.close_sent:
                self._refuse_large()
                return
        if incomplete <= SMALL_MESSAGE_BYTES:
            self._stop_progress()
        elif self._progress is None:
            self._progress = self.loop.call_later(LARGE_CHECK_S, self._check_progress)
            self._received_before = incomplete
        if not may_read and not self._large_paused:
            self._large_paused = True
            self.transport.pause_reading()
        elif may_read and self._large_paused:
            self.resume_large()

    def _refuse_large(self) -> None:
        self._fail(CloseCode.MESSAGE_TOO_BIG, "start a session before a large message")

    def _fail(self, code: CloseCode, reason: str) -> None:
        if not (self.close_sent or self.transport.is_closing()):
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def _check_progress(self) -> None:
        self._progress = None
        received = self._incomplete_bytes
        paused = self._large_paused or self.read_paused
        if received - self._received_before < LARGE_CHECK_S * LARGE_BYTES_PER_S_MIN and not paused:
            self._fail(CloseCode.POLICY_VIOLATION, "the message arrives too slowly")
        else:
            self._received_before = received
            self._progress = self.loop.call_later(LARGE_CHECK_S, self._check_progress)

    def _stop_progress(self) -> None:
        if self._progress is not None:
            self._progress.cancel()
            self._progress = None

    def handle_cont(self, event: Frame) -> None:
        """uvicorn keeps the frames of a message in a list until the last. Their bytes are limited,
        but not their number, and frames may be empty. Keep only their bytes."""
        if self.frames:
            self._fragments += self.frames.pop()
        self._fragments += event.data
        if event.fin:
            self.frames, self._fragments = [bytes(self._fragments)], bytearray()
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Pongs for a client that does not read would fill the write buffer. Not every ping needs
        a pong (RFC 6455, 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_parser_exception(self) -> None:
        """Close after a protocol violation or a message over the limit, and count the close code.

        The connection reads and discards further data for up to ``LINGER_S``. Closing a socket with
        unread data makes the kernel send a reset, after which the client may not see the code."""
        closed = self.conn.close_sent
        assert closed is not None
        CLOSED.labels(closed.code).inc()
        if not self.transport.can_write_eof():  # TLS
            super().handle_parser_exception()
            return
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._lingers = True
        self._release()
        self.transport.write_eof()
        self.transport.resume_reading()
        # Without a timer, uvicorn closes the socket when the application returns.
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def keepalive_timeout(self) -> None:
        """While reading is paused the pong waits in the socket."""
        if self.read_paused or self._large_paused:
            assert self.ping_timeout is not None
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        if not (self.close_sent or self.transport.is_closing()):
            CLOSED.labels(CloseCode.INTERNAL_ERROR).inc()
        super().keepalive_timeout()
