"""How much live audio comes per second: what admission compares with what workers recognise."""

from __future__ import annotations

import math

from broker import limits as limit


class ArrivalRate:
    """Seconds of audio per second, forgetting with a half-life. It begins at 0."""

    def __init__(self) -> None:
        self._audio_s = 0.0
        self._at_s: float | None = None

    def note(self, audio_ms: int) -> None:
        self._audio_s += audio_ms / 1000

    def advance(self, now_s: float) -> None:
        """Time has passed."""
        if self._at_s is not None:
            self._audio_s *= 0.5 ** ((now_s - self._at_s) / limit.ARRIVALS_HALF_LIFE_S)
        self._at_s = now_s

    @property
    def per_s(self) -> float:
        """As of the last ``advance``. What was noted is remembered for half-life / ln 2 on the
        whole."""
        return self._audio_s * math.log(2) / limit.ARRIVALS_HALF_LIFE_S
