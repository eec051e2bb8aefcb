"""Free ports of the loopback interface, for systems under test.

The ports are below the kernel's ephemeral range. In that range, a free port can become the local
port of an outgoing connection before a server binds it. A client that connects to such a port
before the server listens can even be given it as its own local port, and connects to itself.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

LOWEST: Final = 10_000
_EPHEMERAL_LOWEST = 32_768
"""Start of the ephemeral range if /proc does not state it. Other systems start higher."""
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES_MAX = 1_000
_START = random.randrange(1 << 16)
"""Each process starts its search elsewhere and continues after the last port that it returned, so
that no port is returned twice before a server binds it."""
_returned = 0


def free_port() -> int:
    """Return a port that is not in use."""
    return free_range(1)


def free_range(count: int, highest: int | None = None) -> int:
    """Return the first of ``count`` consecutive free ports below ``highest``, by default the start
    of the kernel's ephemeral range.

    Raises:
        OSError: If none is found in ``_TRIES_MAX`` attempts.
    """
    global _returned
    end = _ephemeral_lowest() if highest is None else highest
    if end - count < LOWEST:
        end = 1 << 16  # The kernel's range begins below LOWEST: use all ports.
    for _ in range(_TRIES_MAX):
        # One modulus for all counts, or ranges of different lengths would overlap.
        first = LOWEST + (_START + _returned) % (end - LOWEST)
        _returned += count
        if first + count <= end and all(_is_free(port) for port in range(first, first + count)):
            return first
    raise OSError(f"no {count} free ports in a row between {LOWEST} and {end}")


def _ephemeral_lowest() -> int:
    try:
        return int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_LOWEST


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
