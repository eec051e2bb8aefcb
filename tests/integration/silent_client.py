"""A client that opens a WebSocket and never says anything."""

from __future__ import annotations

import threading
import time

import websockets
from websockets.sync.client import connect


class SilentClient(threading.Thread):
    """It is over when the gateway ends it."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        # Before the gateway's own time begins, or a deadline kept to the millisecond looks early.
        self._began_s = time.monotonic()
        self._socket = connect(url, compression=None, proxy=None)
        self.lasted_s = 0.0
        self.close_code: int | None = None

    def run(self) -> None:
        with self._socket:
            try:
                while True:
                    self._socket.recv()
            except websockets.ConnectionClosed as closed:
                self.close_code = closed.rcvd.code if closed.rcvd is not None else None
        self.lasted_s = time.monotonic() - self._began_s
