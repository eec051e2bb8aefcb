"""Core: memory for large WebSocket messages, over all connections of a gateway.

A message counts while it is received, and until its session has taken it. Beyond the limit
connections stop reading in the middle of a message, and go on when others are done. So that one
message can always be completed, the connection that has held memory for longest always continues to
read, and the others leave room for it.
"""

from __future__ import annotations

from typing import Protocol


class Connection(Protocol):
    def resume_large(self) -> None:
        """The connection may continue to read."""


class LargeMessages:
    """``bytes_max`` limits the sum of all connections; each holds at most ``message_bytes_max``."""

    def __init__(self, bytes_max: int, message_bytes_max: int) -> None:
        self.held_bytes = 0
        self._shared_bytes = max(0, bytes_max - message_bytes_max)
        self._held: dict[Connection, int] = {}
        """Bytes by connection, in the order in which they began."""
        self._waiting: list[Connection] = []

    def hold(self, connection: Connection, byte_count: int) -> bool:
        """Set the bytes that ``connection`` holds. Returns whether it may continue to read; if not,
        its ``resume_large`` is called later."""
        before = self._held.get(connection, 0)
        self.held_bytes += byte_count - before
        if byte_count:
            self._held[connection] = byte_count
        else:
            self._held.pop(connection, None)
        if connection in self._waiting:
            self._waiting.remove(connection)
        if byte_count < before:
            self._resume()
        if not byte_count or self._may_read(connection):
            return True
        self._waiting.append(connection)
        return False

    def _may_read(self, connection: Connection) -> bool:
        return self.held_bytes <= self._shared_bytes or next(iter(self._held)) is connection

    def _resume(self) -> None:
        free = [each for each in self._waiting if self._may_read(each)]
        self._waiting = [each for each in self._waiting if each not in free]
        for connection in free:
            connection.resume_large()
