"""Exponential backoff with equal jitter (AWS Architecture Blog, 2015)."""

from __future__ import annotations

from random import Random

from msgspec import Struct


class Backoff(Struct):
    """Delays grow from ``initial_s`` to ``max_s``. Call ``reset`` after a success."""

    initial_s: float
    max_s: float
    rng: Random
    _failures: int = 0

    def next_delay_s(self) -> float:
        ceiling: float = min(self.max_s, self.initial_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return self.rng.uniform(ceiling / 2, ceiling)

    def reset(self) -> None:
        self._failures = 0
