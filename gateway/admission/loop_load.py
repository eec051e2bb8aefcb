"""How busy the event loop's thread is: the share of time in which it ran, or wanted to run and
waited for a processor. At 1 whatever comes in waits for longer and longer.

The kernel keeps both sums for each thread in ``/proc/PID/task/TID/schedstat`` (nanoseconds). Where
it does not, the processor time alone is taken, which misses the waiting.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path


class LoopLoad:
    """To be made and asked on the event loop's thread."""

    def __init__(self, schedstat: Path | None = None) -> None:
        if schedstat is None:
            schedstat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._schedstat = schedstat
        self._busy_s = self._sum_s()
        self._at_s = time.monotonic()

    def busy(self) -> float:
        """Share of the time since it was last asked, 0 to 1."""
        busy_s, now_s = self._sum_s(), time.monotonic()
        span_s = now_s - self._at_s
        share = (busy_s - self._busy_s) / span_s if span_s > 0 else 0.0
        self._busy_s, self._at_s = busy_s, now_s
        return min(1.0, max(0.0, share))

    def _sum_s(self) -> float:
        with contextlib.suppress(OSError, ValueError):
            ran_ns, waited_ns, _ = self._schedstat.read_text().split()
            return (int(ran_ns) + int(waited_ns)) / 1e9
        return time.thread_time()
