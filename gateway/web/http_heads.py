"""HTTP/1.1 as uvicorn speaks it, with a deadline for a request's head.

uvicorn has none: a client that sends a header byte by byte would hold its connection for ever, and
a few thousand of those hold all of a gateway's file descriptors.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.telemetry.metrics import BAD_REQUESTS, LATE_HEADS

HEAD_S_MAX = 10.0
"""From the connection, or a later request's first byte, to the end of its headers; then the
connection is closed, with 408 if anything came."""
HEAD_BYTES_MAX = 16_384
"""A request's line and headers; beyond it (and a piece) 400, and the connection is closed."""
PIECE_BYTES = 4_096
READ_BYTES_MAX = 32_768
"""Taken from a socket at once. asyncio allocates 256 KiB for every read and then cuts off what was
not needed, which at 2,500 chunks a second leaves the heap in shreds; this is less than what has a
mapping of its own (``runtime.memory.LARGE_BYTES``), which would be two system calls for each."""
_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class HeadDeadline(H11Protocol):
    """Between requests it is uvicorn's keep-alive that ends the connection. What still comes of a
    request that is answered already has as long as a head: with its first byte, keep-alive is
    over."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._late: asyncio.TimerHandle | None = None
        self._heard = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # asyncio's own, not those of other event loops.
            transport.max_size = READ_BYTES_MAX
        self._late = self.loop.call_later(HEAD_S_MAX, self._end_late)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        # h11 measures only heads that are not complete yet, so that a long one in one piece would
        # pass.
        while data and self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            super().data_received(data[:PIECE_BYTES])
            data = data[PIECE_BYTES:]
        if data and self._is_ours():
            super().data_received(data)
        if not (self.conn.their_state is h11.IDLE or self._is_answered):
            self._disarm()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_S_MAX, self._end_late)

    def send_400_response(self, msg: str) -> None:
        BAD_REQUESTS.labels("not_http").inc()
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    @property
    def _is_answered(self) -> bool:
        """The request whose body is still coming."""
        coming = self.conn.their_state is h11.SEND_BODY
        return coming and self.cycle is not None and self.cycle.response_complete

    def _is_ours(self) -> bool:
        """Not after an upgrade, before whose answer a client has nothing to send, nor at the
        end."""
        return not self.transport.is_closing() and self.transport.get_protocol() is self

    def _disarm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end_late(self) -> None:
        self._late = None
        if self.transport.is_closing():
            return
        LATE_HEADS.inc()
        if self._heard and not self._is_answered:
            self.transport.write(_LATE)
        self.transport.close()
