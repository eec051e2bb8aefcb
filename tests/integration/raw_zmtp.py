"""A peer on the bus that sends what libzmq never does (ZMTP 3.0, rfc.zeromq.org/spec/23)."""

from __future__ import annotations

import socket
import struct
from urllib.parse import urlsplit

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\3\0" + b"NULL".ljust(20, b"\0") + bytes(32)
MORE_LONG = 3
"""Flags of a frame that is not the last one and whose length has 8 bytes."""


class RawDealer(socket.socket):
    """A socket connected to a ROUTER as ``identity``, after the handshake."""

    def __init__(self, endpoint: str, identity: bytes) -> None:
        super().__init__()
        try:
            self._shake_hands(endpoint, identity)
        except OSError:
            self.close()
            raise

    def _shake_hands(self, endpoint: str, identity: bytes) -> None:
        address = urlsplit(endpoint)
        self.settimeout(20)
        self.connect((address.hostname, address.port))
        self.sendall(GREETING)
        self.recv(len(GREETING), socket.MSG_WAITALL)
        ready = b"\x05READY"
        for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", identity)):
            ready += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        self.sendall(bytes([4, len(ready)]) + ready)
        self.recv(4_096)

    def send_more(self, frame: bytes) -> None:
        """Send a frame with the flag that more frames follow."""
        self.sendall(struct.pack(">BQ", MORE_LONG, len(frame)) + frame)
