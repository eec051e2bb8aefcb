"""The traces of one session's utterances, from the chunk in which an utterance ends to its row."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gateway.session import events as e
from runtime import tracing
from wire.messages import Job, Lane

UTTERANCES_MAX = 4_096
"""Utterances of a session that are sent and not stored yet. Further ones have no spans."""


@dataclass(slots=True)
class _Open:
    chunk_s: float
    """When the chunk arrived in which the utterance ended."""
    code: str | None = None
    """The error code of an utterance without text."""


class SessionTraces:
    """Exists only while tracing is on. Pass it every event and action of the session."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._chunk_s: float | None = None
        self._open: dict[int, _Open] = {}

    def note_event(self, event: e.Event, now_s: float) -> None:
        if isinstance(event, e.Chunk):
            self._chunk_s = now_s
        elif isinstance(event, e.KeysStored):
            for key in event.keys:
                if key.kind == "result" and key.seq in self._open:
                    self._end(key.session_id, key.seq, now_s)

    def note_action(self, action: e.Action) -> None:
        if isinstance(action, Job) and not action.partial:
            self._begin(action.session_id, action.seq, time.monotonic())
        elif isinstance(action, e.KeepResult) and action.result.seq in self._open:
            error = action.result.error
            self._open[action.result.seq].code = None if error is None else error.code

    def _begin(self, session_id: str, seq: int, now_s: float) -> None:
        # A resent job already has its span.
        if seq not in self._open and len(self._open) < UTTERANCES_MAX:
            chunk_s = now_s if self._chunk_s is None else self._chunk_s
            self._open[seq] = _Open(chunk_s)
            tracing.record("segment", session_id, seq, start_s=chunk_s, end_s=now_s)

    def _end(self, session_id: str, seq: int, now_s: float) -> None:
        ended = self._open.pop(seq)
        tracing.record(
            tracing.ROOT,
            session_id,
            seq,
            start_s=ended.chunk_s,
            end_s=now_s,
            error=ended.code,
            lane=self._lane,
        )
