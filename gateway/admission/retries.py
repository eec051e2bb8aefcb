"""Core: when refused clients try again.

Each refusal costs the gateway about as much as a second of audio. A crowd that returns at the same
time would take the processor from the sessions that are admitted. So each refused client gets a
time of its own, behind those of the clients refused before it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from gateway.admission.policy import Refusal

RETRY_AFTER_S_MAX: Final = 30
"""Longest delay that a crowd adds up to. With more clients, more of them return per second."""


class Retries:
    """The times of one gateway's refused clients."""

    def __init__(self) -> None:
        self._last_s = float("-inf")
        """The latest time given to a client."""

    def spread(self, refusal: Refusal, now_s: float) -> Refusal:
        """Return ``refusal`` with a later time to try again if others have the earlier ones."""
        if not refusal.retries_per_s:
            return refusal
        earliest_s = now_s + refusal.retry_after_s
        latest_s = max(earliest_s, now_s + RETRY_AFTER_S_MAX)
        self._last_s = max(earliest_s, min(latest_s, self._last_s + 1 / refusal.retries_per_s))
        return replace(refusal, retry_after_s=math.ceil(round(self._last_s - now_s, 6)))
