"""Core: the rate at which live audio arrives. Admission compares it with the workers' throughput.

A session that sends faster than real time uses spare capacity and slows down when others arrive.
It therefore counts no more than one that speaks in real time.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from broker import limits as limit


class ArrivalRate:
    """Seconds of audio per second, with exponential decay. Initially 0."""

    def __init__(self) -> None:
        self._audio_s = 0.0
        self._at_s: float | None = None
        self._spoken_until_s: OrderedDict[str, float] = OrderedDict()
        """By session, least recent first: until when it could have spoken all that it sent."""

    def add(self, session_id: str, audio_ms: int, now_s: float) -> None:
        """Add an utterance, as far as it could have been spoken since the session's last one."""
        earliest_s = now_s - limit.UTTERANCE_S_MAX
        spoken_until_s = max(earliest_s, self._spoken_until_s.pop(session_id, earliest_s))
        counted_s = min(audio_ms / 1000, now_s - spoken_until_s)
        self._audio_s += counted_s
        self._spoken_until_s[session_id] = spoken_until_s + counted_s
        if len(self._spoken_until_s) > limit.RATED_SESSIONS_MAX:
            self._spoken_until_s.popitem(last=False)

    def advance(self, now_s: float) -> None:
        """Apply the decay since the last call."""
        if self._at_s is not None:
            self._audio_s *= 0.5 ** ((now_s - self._at_s) / limit.ARRIVALS_HALF_LIFE_S)
        self._at_s = now_s

    @property
    def per_s(self) -> float:
        """The rate as of the last ``advance``. The time constant is half-life / ln 2."""
        return self._audio_s * math.log(2) / limit.ARRIVALS_HALF_LIFE_S
