"""How much live audio comes per second: what admission compares with what workers recognise.

A session that sends faster than in real time takes what is left, and slows down when others come.
So it counts no more than one that speaks.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from broker import limits as limit


class ArrivalRate:
    """Seconds of audio per second, forgetting with a half-life. It begins at 0."""

    def __init__(self) -> None:
        self._audio_s = 0.0
        self._at_s: float | None = None
        self._spoken_s: OrderedDict[str, float] = OrderedDict()
        """By session: what has come of it could have been spoken until then. The latest last."""

    def note(self, session_id: str, audio_ms: int, now_s: float) -> None:
        """An utterance has come. It counts as far as it could have been spoken since the last."""
        earliest_s = now_s - limit.SPOKEN_S_MAX
        spoken_s = max(earliest_s, self._spoken_s.pop(session_id, earliest_s))
        counted_s = min(audio_ms / 1000, now_s - spoken_s)
        self._audio_s += counted_s
        self._spoken_s[session_id] = spoken_s + counted_s
        if len(self._spoken_s) > limit.SPEAKING_SESSIONS_MAX:
            self._spoken_s.popitem(last=False)

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
