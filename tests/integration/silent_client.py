"""A client that opens a WebSocket and answers no ping, as one whose network is gone."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class SilentClient(threading.Thread):
    """The thread ends when the gateway closes the connection; ``received`` is all that it sent."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        # Taken before the gateway's deadline starts, or an exact deadline would look early.
        self._began_s = time.monotonic()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(
            b"GET /ws/asr HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        self.lasted_s = 0.0
        self.received = b""

    def run(self) -> None:
        # A connection may also end with a reset: what was received before counts.
        with self._socket, contextlib.suppress(ConnectionResetError):
            while piece := self._socket.recv(4_096):
                self.received += piece
        self.lasted_s = time.monotonic() - self._began_s
