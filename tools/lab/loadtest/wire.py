"""A WebSocket of the load generator: websockets' ``ClientProtocol`` on a bare asyncio transport.

The generator shares the processor with the system that it measures. Measured with 300 sessions in
one process, it takes 0.6 ms of processor time for a second of audio, and the SDK's client 1.1 ms:
with 500 sessions that saves a quarter of a core. It also times each 503 answer, which the SDK does
not report.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from asr_client.client import authorization

MESSAGE_BYTES_MAX = 1 << 20
CLOSED_ABNORMALLY = 1006


class Listener(Protocol):
    """Owner of a ``Wire``; called on the event loop."""

    def opened(self) -> None: ...
    def refused(self, status: int, retry_after_s: float | None) -> None: ...
    def arrived(self, message: str) -> None: ...
    def lost(self, code: int) -> None: ...
    def writable(self) -> None: ...


class Wire(asyncio.Protocol):
    """One connection. It calls ``opened`` or ``refused`` once; after ``opened`` it calls ``lost``
    once, unless ``close`` was called before."""

    def __init__(self, url: str, listener: Listener, token: str | None = None) -> None:
        self._protocol = ClientProtocol(parse_uri(url), max_size=MESSAGE_BYTES_MAX)
        self._headers = authorization(token)
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._opened = False
        self._over = False
        self.paused = False
        """The server reads too slowly; more data would be buffered here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        request = self._protocol.connect()
        request.headers.update(self._headers)
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._answered()
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT and not self._over:
                self._listener.arrived(bytes(event.data).decode())
        self._flush()

    def _answered(self) -> None:
        error = self._protocol.handshake_exc
        if error is None:
            self._opened = True
            self._listener.opened()
            return
        self._over = True
        if isinstance(error, InvalidStatus):
            after = error.response.headers.get("Retry-After", "")
            retry_after_s = float(after) if after.isdigit() else None
            self._listener.refused(error.response.status_code, retry_after_s)
        else:
            self._listener.lost(CLOSED_ABNORMALLY)
        self.abort()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._over:
            self._over = True
            code = self._protocol.close_code if self._opened else None
            self._listener.lost(code or CLOSED_ABNORMALLY)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._listener.writable()

    def send(self, message: str | bytes) -> None:
        """Send a message, unless the server has begun to close: ``lost`` then follows."""
        if self._protocol.state is not State.OPEN:
            return
        if isinstance(message, bytes):
            self._protocol.send_binary(message)
        else:
            self._protocol.send_text(message.encode())
        self._flush()

    def close(self) -> None:
        """Close the connection. The listener is not called any more."""
        self._over = True
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
            else:
                transport.close()
