"""A client that sends its headers slowly and without end."""

from __future__ import annotations

import socket
import threading
import time


class SlowHead(threading.Thread):
    """Sends a header byte by byte. The thread ends when the gateway closes the connection."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        # Taken before the gateway's deadline starts, or an exact deadline would look early.
        self._began_s = time.monotonic()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self.lasted_s = 0.0
        self.answer = b""

    def run(self) -> None:
        self._socket.settimeout(0.5)
        with self._socket:
            for byte in b"GET /livez HTTP/1.1\r\nX-Slow: " + b"x" * 200:
                try:
                    self._socket.sendall(bytes([byte]))
                    self.answer += self._socket.recv(4_096)
                    break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        self.lasted_s = time.monotonic() - self._began_s
