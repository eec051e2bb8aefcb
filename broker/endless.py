"""Messages that never end.

libzmq hands over a message when its last frame has come, and keeps its frames until then, however
many there are: of such a message only its sender's connection can tell. A connection on which a lot
arrives, and no message, is cut; libzmq then forgets what it kept.

What has arrived on a connection is asked of the kernel (Linux: ``TCP_INFO``), several times a
second. Which connection a message came from is asked of libzmq, but only while one is suspected:
it costs each message half a microsecond.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ARRIVED_BYTES_MAX = 16 << 20
"""On one connection, without a message among them; then it is suspected, and after as much again
it is cut. The largest message takes a quarter of that."""
LOOKS_TO_CUT = 2
"""So often that has to be seen: what arrived while it was looked for is taken only after that."""
LOOK_EVERY_S = 0.2
LOOK_SHARE_MAX = 0.01
"""Of time. With many connections it is looked less often."""
_INFO_BYTES = 192
_BYTES_RECEIVED = struct.Struct("=128xQ")
"""``struct tcp_info`` up to ``tcpi_bytes_received`` (linux/tcp.h; since Linux 4.1)."""

Connection = tuple[int, str]
"""Its descriptor in this process, and its peer's address: descriptors are used again."""


@dataclass(slots=True)
class _Seen:
    told_of_at: int = 0
    """Bytes that had arrived when a message came last, as far as was looked."""
    suspected_at: int | None = None
    looks: int = 0
    """That found as much again."""


class EndlessMessages:
    """SANS-IO: tell it what arrived on each connection, and while ``suspicious``, from which
    descriptor messages came."""

    def __init__(self) -> None:
        self.suspicious = False
        self._seen: dict[Connection, _Seen] = {}
        self._heard: set[int] = set()

    def heard(self, descriptor: int) -> None:
        """A whole message came from there."""
        self._heard.add(descriptor)

    def look(self, arrived: Mapping[Connection, int]) -> list[Connection]:
        """``arrived``: bytes since each connection began. Call it when all messages are taken that
        are there. Returns those to cut."""
        seen = {connection: self._seen.get(connection, _Seen()) for connection in arrived}
        endless = [each for each, count in arrived.items() if self._judge(each, seen[each], count)]
        self._seen = seen
        self._heard.clear()
        self.suspicious = any(one.suspected_at is not None for one in seen.values())
        return endless

    def _judge(self, connection: Connection, seen: _Seen, arrived: int) -> bool:
        if connection[0] in self._heard:
            seen.told_of_at, seen.suspected_at, seen.looks = arrived, None, 0
        elif seen.suspected_at is None:
            if arrived - seen.told_of_at > ARRIVED_BYTES_MAX:
                seen.suspected_at = arrived
        elif arrived - seen.suspected_at > ARRIVED_BYTES_MAX:
            seen.looks += 1
        return seen.looks >= LOOKS_TO_CUT


def connections(ports: Iterable[int]) -> dict[Connection, int]:
    """This process's TCP connections to its own ``ports``, and how many bytes came on each; none
    where the kernel does not tell, or has no descriptor left to look with."""
    if sys.platform != "linux":
        return {}
    wanted = frozenset(ports)
    found = {}
    try:
        descriptors = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    except OSError:
        return {}
    for descriptor in descriptors:
        with _borrowed(descriptor) as end:
            if end is not None and end.getsockname()[1] in wanted:
                info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
                if len(info) >= _BYTES_RECEIVED.size:
                    found[descriptor, _peer(end)] = _BYTES_RECEIVED.unpack_from(info)[0]
    return found


def cut(connection: Connection) -> None:
    """End a connection that libzmq has: its next read finds the end."""
    descriptor, peer = connection
    with _borrowed(descriptor) as end:
        if end is not None and _peer(end) == peer:
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket | None]:
    """Somebody else's TCP connection under a descriptor of our own for a moment; None if it is
    none, or not any more."""
    try:
        # Python's socket does not close what turns out to be none.
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        end = socket.socket(fileno=os.dup(descriptor)) if is_socket else None
    except OSError:
        end = None
    if end is None:
        yield None
        return
    with end:
        connected = end.family in (socket.AF_INET, socket.AF_INET6) and _peer(end)
        with contextlib.suppress(OSError):  # It may end at any moment.
            yield end if connected else None


def _peer(end: socket.socket) -> str:
    """Address and port; empty if it is not connected."""
    try:
        host, port, *_ = end.getpeername()
    except OSError:
        return ""
    return f"{host}:{port}"
