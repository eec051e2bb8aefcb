"""Restarts of the processes of a system that a load test has started, at a fixed interval."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import psutil

KINDS: Final = ("broker", "persistence", "asr_worker", "gateway")


class Restarts:
    """Sends SIGTERM to the oldest process of one kind after the other, evenly spread, so that each
    kind is restarted once in ``every_s``. The supervisors start them again."""

    def __init__(
        self,
        every_s: float,
        living: Callable[[str], Sequence[psutil.Process]],
        show: Callable[[str], None],
    ) -> None:
        """``living``: the processes of a kind, oldest first."""
        self._step_s = every_s / len(KINDS)
        self._living = living
        self._show = show
        self.count = 0

    def go_on(self, at_s: float) -> None:
        """Restart what is due at this time of the run. Call it about once a second."""
        while at_s >= (self.count + 1) * self._step_s:
            kind = KINDS[self.count % len(KINDS)]
            self.count += 1
            for process in self._living(kind)[:1]:
                self._show(f"{at_s:5.0f} s  restart of {kind}, process {process.pid}")
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()
