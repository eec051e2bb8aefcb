"""How long other programs have made processes wait, for promises about time on a busy machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path


class ProcessorWaits:
    """The waits of ``pids`` since it was made. Where the kernel does not count them, there are
    none."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._before = [_waits_s(pid) for pid in self._pids]

    def seconds(self) -> float:
        """The sum over the processes, of each the thread that waited longest."""
        longest_s = 0.0
        for pid, before in zip(self._pids, self._before, strict=True):
            waits_s = (s - before.get(thread, 0.0) for thread, s in _waits_s(pid).items())
            longest_s += max(waits_s, default=0.0)
        return longest_s


def _waits_s(pid: int) -> dict[str, float]:
    """Seconds for which each thread was ready to run, and did not run."""
    found = {}
    for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):
            _ran_ns, waited_ns, _ = schedstat.read_text().split()
            found[schedstat.parent.name] = int(waited_ns) / 1e9
    return found
