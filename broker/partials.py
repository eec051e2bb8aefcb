"""Core: the workers' time that partial jobs may take: a share of what final jobs leave."""

from __future__ import annotations

import math

from broker import limits as limit


class PartialBudget:
    """Worker time saved up for partial jobs. Call ``advance`` about twenty times a second."""

    def __init__(self) -> None:
        self._saved_s = limit.PARTIAL_BURST_S
        self._spent_s = 0.0
        self._at_s: float | None = None

    @property
    def per_s(self) -> float:
        """Worker time that partial jobs take per second, a moving average."""
        return self._spent_s * math.log(2) / limit.ARRIVALS_HALF_LIFE_S

    @property
    def left(self) -> bool:
        """Whether a partial job may be assigned. One that takes more than is left is paid off
        before the next."""
        return self._saved_s > 0

    def spend(self, work_s: float) -> None:
        """A partial job is assigned that is expected to take this long."""
        self._saved_s -= work_s
        self._spent_s += work_s

    def advance(self, now_s: float, *, workers: int, utilisation: float) -> None:
        """Save up since the last call. ``utilisation`` is the share of the time of all ``workers``
        that final jobs take."""
        passed_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        self._spent_s *= 0.5 ** (passed_s / limit.ARRIVALS_HALF_LIFE_S)
        spare = workers * max(0.0, 1 - utilisation)
        saved_s = self._saved_s + passed_s * limit.PARTIAL_SPARE_SHARE * spare
        self._saved_s = min(saved_s, limit.PARTIAL_BURST_S * workers)
