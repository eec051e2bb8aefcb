"""Free ports of loopback for systems that are started to be tested or measured.

They are taken from below the range that the kernel takes the near ends of connections from. In
that range a port that was free a moment ago may be an outgoing connection's by the time a server
binds it; and who connects to a port where nobody listens yet may be given that very port for its
own end, and talks to itself.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

LOWEST: Final = 10_000
_KERNELS_LOWEST = 32_768
"""Where the kernel's range begins, unless Linux says otherwise; on other systems it is higher."""
_KERNELS_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES_MAX = 1_000
_START = random.randrange(1 << 16)
"""Each process looks from elsewhere, and goes on from what it was given last, so that it is given
no port twice before anything binds it."""
_given = 0


def free_port() -> int:
    """A port that nobody has at the moment."""
    return free_range(1)


def free_range(count: int, highest: int | None = None) -> int:
    """The first of ``count`` ports in a row, all free, below ``highest``: by default where the
    kernel's range begins.

    Raises:
        OSError: none was found in a thousand tries.
    """
    global _given
    end = _kernels_lowest() if highest is None else highest
    if end - count < LOWEST:
        end = 1 << 16  # The kernel has it all; then so be it.
    places = end - count - LOWEST + 1
    for _ in range(_TRIES_MAX):
        first = LOWEST + (_START + _given) % places
        _given += count
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise OSError(f"no {count} free ports in a row between {LOWEST} and {end}")


def _kernels_lowest() -> int:
    try:
        return int(_KERNELS_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _KERNELS_LOWEST


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
