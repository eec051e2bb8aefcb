"""SANS-IO: what one session's client is told, over all its connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from gateway.session import events as e
from gateway.session.answers import segment_answer
from gateway.session.transcript_store import TranscriptStore
from gateway.telemetry.metrics import ANSWERS_DISCARDED
from wire.messages import Result

MISSED_PROBLEMS_MAX = 100
"""Error answers kept for a client that is away; more are counted only."""


class Delivery:
    """Tells answers while the client is there. What it misses is told when it comes back: texts
    because ``results`` are kept anyway, and errors; acknowledgements and partials are not missed,
    because the answer to its return says more.
    """

    def __init__(self, session_id: str, results: Iterable[Result] = ()) -> None:
        """``results``: those of a session that was elsewhere before."""
        self.connected = True
        self.detached_at_s = 0.0
        self.results = TranscriptStore()
        """Results whose turn came, in segment order from 0."""
        for result in results:
            self.results.append(result)
        self._session_id = session_id
        self._written = 0
        self._told_from = 0
        self._missed: list[e.Problem] = []

    def tell(self, answer: e.Answer) -> list[e.Action]:
        if self.connected:
            return [cast(e.Action, answer)]
        if isinstance(answer, e.Problem):
            if len(self._missed) < MISSED_PROBLEMS_MAX:
                self._missed.append(answer)
            else:
                ANSWERS_DISCARDED.labels("client_away").inc()
        return []

    def deliver(self, result: Result) -> list[e.Action]:
        """Take the next result in segment order; tell it unless the client has it already."""
        assert result.seq == len(self.results)
        self.results.append(result)
        return self._segment(result) if self.connected else []

    def note_written(self, segment_index: int) -> None:
        """The answer to this segment went into the client's socket."""
        self._written = max(self._written, segment_index + 1)

    def detach(self, now_s: float) -> None:
        self.connected = False
        self.detached_at_s = now_s

    def attach(self, next_segment_index: int | None) -> int:
        """The client is back and has this many segments' texts, or does not tell: then it has
        those that were written to its sockets. Returns the index of the next that it gets."""
        self.connected = True
        self._told_from = self._written if next_segment_index is None else next_segment_index
        return self._told_from

    def catch_up(self) -> list[e.Action]:
        """After ``attach``: what the client has missed."""
        missing = self.results.since(self._told_from)
        actions = [action for result in missing for action in self._segment(result)]
        missed, self._missed = self._missed, []
        return [*actions, *(cast(e.Action, problem) for problem in missed)]

    def _segment(self, result: Result) -> list[e.Action]:
        if result.seq < self._told_from:
            return []
        return [cast(e.Action, segment_answer(self._session_id, result))]
