"""Waiting times between tries: exponential, bounded, with full jitter (AWS architecture blog,
"Exponential Backoff And Jitter", 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass
class Backoff:
    """``next_delay_s`` grows from ``initial_s`` to ``max_s``; ``reset`` after a success."""

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
