"""A peer of the bus that says what libzmq never would (ZMTP 3.0, rfc.zeromq.org/spec/23)."""

from __future__ import annotations

import socket
import struct
from urllib.parse import urlsplit

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\3\0" + b"NULL".ljust(20, b"\0") + bytes(32)
MORE_LONG = 3
"""Flags of a frame with more to come, and its length in 8 bytes."""


class RawDealer(socket.socket):
    """Connected to a ROUTER under ``identity``, its handshake done."""

    def __init__(self, endpoint: str, identity: bytes) -> None:
        super().__init__()
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
        """A frame of a message that goes on."""
        self.sendall(struct.pack(">BQ", MORE_LONG, len(frame)) + frame)
