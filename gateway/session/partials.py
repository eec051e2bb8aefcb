"""SANS-IO: when a partial of the open utterance is worth recognising, and worth telling."""

from __future__ import annotations

from gateway.session.segmenter import CutUtterance


class PartialPacing:
    """Both answers are about the session's timeline, in ms, and never go back on it."""

    def __init__(self, every_ms: int) -> None:
        self._every_ms = every_ms
        self._asked_ms = 0
        self._told_ms = 0

    def segment_ended(self, end_ms: int) -> None:
        """A final segment reaches ``end_ms``: partials before that are history."""
        self._asked_ms = self._told_ms = end_ms

    def ask(self, utterance: CutUtterance) -> bool:
        """Whether the open ``utterance`` has grown enough since the last time; noted if so."""
        since_ms = max(self._asked_ms, utterance.start_ms)
        if utterance.end_ms - since_ms < self._every_ms:
            return False
        self._asked_ms = utterance.end_ms
        return True

    def tell(self, end_ms: int) -> bool:
        """Whether a result that reaches ``end_ms`` says more than what was told; noted if so."""
        if end_ms <= self._told_ms:
            return False
        self._told_ms = end_ms
        return True
