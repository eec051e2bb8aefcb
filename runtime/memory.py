"""Python's cyclic garbage collector, for processes with many long-lived objects.

Its default thresholds come from small programs: a gateway of 500 sessions spent a tenth of its time
looking through objects that live as long as their sessions, and stood still for 0.2 s now and then.
Nearly all of our objects are freed by their reference counts; the collector is for the few cycles
that exceptions and tasks leave.

One cycle comes with each connection: asyncio's transports hold their own bound methods. By
thresholds alone those of a million connections would be kept, several GB. And glibc keeps what is
freed between other things, in a worker as much again as it uses. So every process sweeps now and
then.

Between two sweeps a gateway's many short-lived buffers, utterances of 100 kB and what is read from
sockets, lie scattered in the heap among what lasts, and take a little more room with every hour.
``map_large`` keeps them out of it.
"""

from __future__ import annotations

import ctypes
import gc

YOUNG_OBJECTS_MAX = 10_000
"""Collections of the youngest come when so many more objects were made than freed."""
YOUNG_COLLECTIONS_MAX = 20
"""Then the middle generation is looked through as well."""
MIDDLE_COLLECTIONS_MAX = 50
"""Then all, if a quarter of them is new."""
SWEEP_EVERY_S = 10.0

LARGE_BYTES = 65_536
"""Of a process that called ``map_large``: an allocation of this size is no part of the heap. By
glibc's default that is from 128 KiB on at first, and more with the first that is freed."""
FREE_AT_TOP_BYTES_MAX = 1_048_576
"""Such a process gives back what is free at the heap's end beyond this. The default, an eighth of
it, is crossed at every turn."""

_libc = ctypes.CDLL(None)
_malloc_trim = getattr(_libc, "malloc_trim", None)
"""Of glibc; others give memory back by themselves, or have no such thing."""
_mallopt = getattr(_libc, "mallopt", None)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def settle() -> None:
    """To be called once, when everything is imported and made that lasts as long as the process:
    none of it is looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, YOUNG_COLLECTIONS_MAX, MIDDLE_COLLECTIONS_MAX)


def map_large() -> None:
    """Let each large buffer have a mapping of its own, which is gone when it is freed. It costs two
    system calls and a page fault for each 4 KiB: not for processes that only hand such buffers
    through."""
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        _mallopt(_M_TRIM_THRESHOLD, FREE_AT_TOP_BYTES_MAX)


def sweep() -> None:
    """Collect everything now, and give freed memory back to the system: what a crowd took when it
    came must not stay when it has left."""
    gc.collect()
    if _malloc_trim is not None:
        _malloc_trim(0)


class Sweeper:
    """``sweep`` for a loop that turns anyway."""

    def __init__(self) -> None:
        self._due_s: float | None = None

    def turn(self, now_s: float) -> bool:
        """Sweep every ``SWEEP_EVERY_S``. Whether it did."""
        if self._due_s is None:
            self._due_s = now_s + SWEEP_EVERY_S
        if now_s < self._due_s:
            return False
        self._due_s = now_s + SWEEP_EVERY_S
        sweep()
        return True
