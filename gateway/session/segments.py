"""SANS-IO: the segments of one session, from the job's submission until the client has its text.

Keeps each segment's audio until its result is there, resends jobs that got no answer, and lets
results out in segment order only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.telemetry.metrics import RESULTS_DISCARDED
from wire.messages import Failure, Job, Result

RESEND_AFTER_S = 10.0
"""Without any answer for this long a job is sent again; the broker knows duplicates."""
OVERLOADED_RETRY_INITIAL_S = 0.5
OVERLOADED_RETRY_MAX_S = 5.0
DEADLINE_GRACE_S = 2.0
"""The broker answers at the deadline; when even that answer is missing, we do, this much later."""

DEADLINE = Failure(code="deadline", message="no worker recognised this segment in time")
RETRYABLE = frozenset({"overloaded"})
"""Failures that say "not now": the job is sent again until its deadline."""


@dataclass(slots=True)
class _Pending:
    job: Job
    submitted_s: float
    resend_at_s: float
    refusals: int = 0
    sent: int = 1
    """How often the job was sent and not refused: each time a result may be published."""
    result: Result | None = None


class Segments:
    """Final jobs of one session. Partials pass by: nothing of them is kept."""

    def __init__(self, deadline_ms: int, first_seq: int = 0) -> None:
        self._deadline_s = deadline_ms / 1000
        self._deadline_ms = deadline_ms
        self._pending: deque[_Pending] = deque()
        self._first_seq = first_seq
        self._unanswered_audio_ms = 0

    @property
    def next_seq(self) -> int:
        """Index of the next segment; the number of segments so far."""
        return self._first_seq + len(self._pending)

    @property
    def unanswered_audio_ms(self) -> int:
        return self._unanswered_audio_ms

    @property
    def all_delivered(self) -> bool:
        return not self._pending

    def add(self, job: Job, now_s: float) -> Job:
        """Take ``job``, whose seq must be ``next_seq``; returns it as it is to be sent."""
        assert job.seq == self.next_seq and not job.partial
        job = replace(job, deadline_ms=self._deadline_ms)
        self._pending.append(_Pending(job, now_s, now_s + RESEND_AFTER_S))
        self._unanswered_audio_ms += job.end_ms - job.start_ms
        return job

    def answer(self, result: Result, now_s: float) -> bool:
        """Take a final result. Returns whether it is news: False for one that we have already,
        never asked for, or that only says "not now"."""
        place = result.seq - self._first_seq
        if not 0 <= place < len(self._pending):
            RESULTS_DISCARDED.labels("repeated" if place < 0 else "unknown_segment").inc()
            return False
        pending = self._pending[place]
        if pending.result is not None:
            RESULTS_DISCARDED.labels("repeated").inc()
            return False
        if result.generation != pending.job.generation:
            # Asked for when the session was here before: its row will not be stored.
            RESULTS_DISCARDED.labels("stale_generation").inc()
            return False
        if result.error is not None and result.error.code in RETRYABLE:
            delay_s = min(
                OVERLOADED_RETRY_MAX_S, OVERLOADED_RETRY_INITIAL_S * 2.0**pending.refusals
            )
            pending.refusals = min(pending.refusals + 1, 30)
            pending.sent -= 1
            pending.resend_at_s = now_s + delay_s
            RESULTS_DISCARDED.labels("overloaded").inc()
            return False
        pending.result = result
        self._unanswered_audio_ms -= pending.job.end_ms - pending.job.start_ms
        # The audio was kept for resending only.
        pending.job = replace(pending.job, pcm=b"")
        return True

    def waited_s(self, seq: int, now_s: float) -> float:
        """How long ago this pending segment's job was first sent."""
        return now_s - self._pending[seq - self._first_seq].submitted_s

    def is_contested(self, seq: int) -> bool:
        """Whether more than one result may have been published for this pending segment, or
        another than the one taken."""
        pending = self._pending[seq - self._first_seq]
        return pending.sent != 1 or (pending.result is not None and not pending.result.worker_id)

    def pop_deliverable(self) -> Iterator[Result]:
        """Results that are next in segment order; each is returned once."""
        while self._pending and self._pending[0].result is not None:
            self._first_seq += 1
            result = self._pending.popleft().result
            assert result is not None
            yield result

    def due(self, now_s: float) -> tuple[list[Job], list[Result]]:
        """Jobs to send again now, and failures for those whose time is over."""
        resend: list[Job] = []
        failed: list[Result] = []
        for pending in self._pending:
            if pending.result is not None:
                continue
            left_s = pending.submitted_s + self._deadline_s - now_s
            if left_s <= -DEADLINE_GRACE_S:
                failed.append(pending.job.result(error=DEADLINE))
            elif left_s > 0 and now_s >= pending.resend_at_s:
                pending.resend_at_s = now_s + RESEND_AFTER_S
                pending.sent += 1
                resend.append(replace(pending.job, deadline_ms=max(1, int(left_s * 1000))))
        return resend, failed

    def resend_all(self, now_s: float) -> list[Job]:
        """Every unanswered job, because the broker forgot them (new epoch)."""
        for pending in self._pending:
            pending.resend_at_s = min(pending.resend_at_s, now_s)
        return self.due(now_s)[0]
