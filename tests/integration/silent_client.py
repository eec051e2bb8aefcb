"""A client that opens a WebSocket and sends nothing."""

from __future__ import annotations

import threading
import time

import websockets
from websockets.sync.client import connect


class SilentClient(threading.Thread):
    """The thread ends when the gateway closes the connection."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        # Taken before the gateway's deadline starts, or an exact deadline would look early.
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
