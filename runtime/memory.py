"""Garbage collection and the C heap, for processes with many long-lived objects.

With Python's default thresholds a gateway with 500 sessions spent a tenth of its time on scans of
objects that live as long as their sessions, with pauses of 0.2 s. Reference counts free nearly all
of our objects, so ``settle`` makes the collector run less often.

Each connection leaves one cycle, because asyncio's transports hold their own bound methods, and
glibc keeps freed memory, in a worker as much as the process uses. Hence every process calls
``sweep`` periodically. Between two sweeps, short-lived buffers of a gateway, such as utterances of
100 kB, would fragment the heap. ``map_large`` allocates them outside of it.
"""

from __future__ import annotations

import ctypes
import gc

YOUNG_OBJECTS_MAX = 10_000
"""Threshold of generation 0: allocations minus deallocations since its last collection."""
YOUNG_COLLECTIONS_MAX = 20
"""Collections of generation 0 before one of generation 1."""
MIDDLE_COLLECTIONS_MAX = 50
"""Collections of generation 1 before a full one, which also needs a quarter of new objects."""
SWEEP_EVERY_S = 60.0
"""A sweep stops a gateway with 300 sessions for about 0.1 s."""

LARGE_BYTES = 65_536
"""After ``map_large``, allocations from this size on get a mapping of their own. glibc's default
threshold is 128 KiB and grows when the first mapping is freed."""
FREE_AT_TOP_BYTES_MAX = 1_048_576
"""After ``map_large``, free memory at the end of the heap beyond this is returned to the system.
glibc's default, an eighth of this, would be exceeded on every iteration of the event loop."""

_libc = ctypes.CDLL(None)
_malloc_trim = getattr(_libc, "malloc_trim", None)
_mallopt = getattr(_libc, "mallopt", None)
"""Both exist in glibc only."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def settle() -> None:
    """Exclude all present objects from garbage collection and raise the thresholds. Call once, when
    everything that lives as long as the process exists."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, YOUNG_COLLECTIONS_MAX, MIDDLE_COLLECTIONS_MAX)


def map_large() -> None:
    """Give each large buffer a mapping of its own, which is returned to the system when freed. It
    costs two system calls and a page fault for each 4 KiB: not for processes that only forward."""
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        _mallopt(_M_TRIM_THRESHOLD, FREE_AT_TOP_BYTES_MAX)


def sweep() -> None:
    """Run a full collection and return freed memory to the system."""
    gc.collect()
    if _malloc_trim is not None:
        _malloc_trim(0)


class Sweeper:
    """Calls ``sweep`` periodically from an existing loop."""

    def __init__(self) -> None:
        self._due_s: float | None = None

    def turn(self, now_s: float) -> bool:
        """Sweep if ``SWEEP_EVERY_S`` have passed. Returns whether it did."""
        due = self._due_s is not None and now_s >= self._due_s
        if due:
            sweep()
        if due or self._due_s is None:
            self._due_s = now_s + SWEEP_EVERY_S
        return due
