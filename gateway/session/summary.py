"""Core: the last log line of a session, which sums it up."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Literal

from gateway.session import events as e
from gateway.session.core import Session
from gateway.session.states import State
from gateway.session.transcript import word_spans
from wire.messages import Record, Result

LATENCIES_MAX = 4_096
"""Percentiles are computed from this many segments, the last ones."""
WORKERS_MAX = 16
"""Workers named in the line; further ones are left out."""

Cause = Literal["internal_error", "handed_over"]
"""The reason why a session ended here without a stored end."""


class SessionSummary:
    """Collects while the session runs. Call ``fields`` when it is over."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.token_name = ""
        """Name of the access token; ``""``: none is required."""
        self.began_s = 0.0
        self.resumes = 0
        """Number of times that the client has resumed at this gateway."""
        self.cause: Cause | None = None
        self._status: str | None = None
        self._stored: bool | None = None
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES_MAX)
        self._workers: dict[str, None] = {}
        self._errors: Counter[str] = Counter()

    def note_result(self, result: Result, waited_s: float) -> None:
        self._latencies_s.append(waited_s)
        if result.error is not None:
            self._errors[result.error.code] += 1
        if result.worker_id and len(self._workers) < WORKERS_MAX:
            self._workers[result.worker_id] = None

    def note_answer(self, answer: e.Answer) -> None:
        if isinstance(answer, e.Problem) and answer.segment_index is None:
            self._errors[answer.code] += 1
        elif isinstance(answer, e.Finished):
            self._stored = answer.stored

    def note_record(self, record: Record) -> None:
        if record.body["type"] == "finished":
            self._status = record.body["status"]

    def fields(self, session: Session, now_s: float) -> dict[str, Any]:
        """Return the fields of the log line. Fields without a value are omitted."""
        start = session.start
        assert start is not None
        text = session.text
        fields = {
            "status": self._final_status(session),
            "client": session.client,
            "user_id": start.user_id or None,
            "token_name": self.token_name or None,
            "dialect": self.dialect,
            "lane": session.lane,
            "mode": start.mode,
            "model": start.model,
            "language": start.language or None,
            "lasted_s": round(now_s - self.began_s, 1),
            "duration_ms": session.duration_ms,
            "chunks": session.chunk_count,
            "segments": session.segment_count,
            "words": len(word_spans(text)),
            "characters": len(text),
            "latency_p50_ms": _percentile_ms(self._latencies_s, 0.50),
            "latency_p95_ms": _percentile_ms(self._latencies_s, 0.95),
            "workers": list(self._workers) or None,
            "resumes": self.resumes or None,
            "generation": session.resume_point.generation or None,
            "errors": dict(self._errors) or None,
            "stored": self._stored,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _final_status(self, session: Session) -> str:
        if self.cause is not None:
            return self.cause
        if session.state is State.RELEASED:
            return "deleted"
        return self._status or "already_complete"


def _percentile_ms(values_s: Sequence[float], share: float) -> int | None:
    """Return the percentile by nearest rank; None without values."""
    if not values_s:
        return None
    return round(sorted(values_s)[math.ceil(share * len(values_s)) - 1] * 1_000)
