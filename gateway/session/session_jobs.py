"""Core: the jobs of one session.

``SessionJobs`` keeps each final job from its submission until the client has the result: it holds
the audio until the result arrives, resends jobs without an answer, and returns results in segment
order only. ``PartialPacing`` decides when a partial job is worth submitting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from wire.messages import Failure, Job, Result

RESEND_AFTER_S = 10.0
"""Time without an answer after which a job is sent again. The broker drops duplicates."""
OVERLOADED_RETRY_INITIAL_S = 0.5
OVERLOADED_RETRY_MAX_S = 5.0
"""Backoff after ``overloaded``."""
DEADLINE_GRACE_S = 2.0
"""The broker reports a missed deadline. If that report is missing too, the segment fails here this
much later."""

PARTIAL_INTERVAL_TIMES = 3.0
"""Interval between two partial jobs of a session, as a multiple of the time to the last answer."""
PARTIAL_ANSWER_S_MAX = 3.0
"""The broker may drop a partial job without an answer. It is not waited for after this time."""

DEADLINE = Failure(code="deadline", message="no worker recognised this segment in time")
RETRYABLE = frozenset({"overloaded"})
"""Failures after which a job is sent again until its deadline."""

Discarded = Literal["unknown_segment", "repeated", "stale_generation", "overloaded"]


@dataclass(slots=True)
class _Pending:
    job: Job
    submitted_s: float
    resend_at_s: float
    refusals: int = 0
    sent: int = 1
    """Number of times that the job was sent: each time, a result may be published."""
    result: Result | None = None


class SessionJobs:
    """Final jobs of one session."""

    def __init__(self, first_seq: int = 0) -> None:
        self.unanswered_audio_ms = 0
        self._pending: deque[_Pending] = deque()
        self._first_seq = first_seq

    @property
    def next_seq(self) -> int:
        """Index of the next segment; the number of segments so far."""
        return self._first_seq + len(self._pending)

    @property
    def all_delivered(self) -> bool:
        return not self._pending

    def add(self, job: Job, now_s: float) -> None:
        """Keep ``job``, which the caller sends now. Its seq must be ``next_seq``."""
        assert job.seq == self.next_seq and not job.partial
        self._pending.append(_Pending(job, now_s, now_s + RESEND_AFTER_S))
        self.unanswered_audio_ms += job.end_ms - job.start_ms

    def take_result(self, result: Result, now_s: float) -> Discarded | None:
        """Take a final result. Returns why it is discarded, or None if it is new."""
        index = result.seq - self._first_seq
        if index < 0:
            return "repeated"
        if index >= len(self._pending):
            return "unknown_segment"
        pending = self._pending[index]
        if pending.result is not None:
            return "repeated"
        if result.generation != pending.job.generation:
            # Its row will not be stored.
            return "stale_generation"
        if result.error is not None and result.error.code in RETRYABLE:
            delay_s = min(
                OVERLOADED_RETRY_MAX_S, OVERLOADED_RETRY_INITIAL_S * 2.0**pending.refusals
            )
            pending.refusals = min(pending.refusals + 1, 30)
            pending.sent -= 1
            pending.resend_at_s = now_s + delay_s
            return "overloaded"
        pending.result = result
        self.unanswered_audio_ms -= pending.job.end_ms - pending.job.start_ms
        # The audio was kept for resending only.
        pending.job = replace(pending.job, pcm=b"")
        return None

    def waited_s(self, seq: int, now_s: float) -> float:
        """Time since this pending segment's job was first sent."""
        return now_s - self._pending[seq - self._first_seq].submitted_s

    def is_contested(self, seq: int) -> bool:
        """Whether a result other than the one taken may have been published for this pending
        segment."""
        pending = self._pending[seq - self._first_seq]
        return pending.sent != 1 or (pending.result is not None and not pending.result.worker_id)

    def pop_deliverable(self) -> Iterator[Result]:
        """Results that are next in segment order. Each is returned once."""
        while self._pending and self._pending[0].result is not None:
            self._first_seq += 1
            result = self._pending.popleft().result
            assert result is not None
            yield result

    def due(self, now_s: float) -> tuple[list[Job], list[Result]]:
        """Jobs to send again now, and failures for jobs past their deadline."""
        resend: list[Job] = []
        failed: list[Result] = []
        for pending in self._pending:
            if pending.result is not None:
                continue
            left_s = pending.submitted_s + pending.job.deadline_ms / 1000 - now_s
            if left_s <= -DEADLINE_GRACE_S:
                failed.append(pending.job.result(error=DEADLINE))
            elif left_s > 0 and now_s >= pending.resend_at_s:
                pending.resend_at_s = now_s + RESEND_AFTER_S
                pending.sent += 1
                resend.append(replace(pending.job, deadline_ms=max(1, int(left_s * 1000))))
        return resend, failed

    def resend_all(self, now_s: float) -> list[Job]:
        """Every unanswered job: a broker of a new epoch has none of them."""
        for pending in self._pending:
            pending.resend_at_s = min(pending.resend_at_s, now_s)
        return self.due(now_s)[0]


class PartialPacing:
    """Decides when one session requests partial results, and which of them it sends. Positions are
    in ms of its timeline.

    At most one partial job is in flight. The slower it is answered, because the model is slow or
    busy, the longer the interval to the next.
    """

    def __init__(self, every_ms: int) -> None:
        self._every_ms = every_ms
        self._interval_ms = every_ms
        self._segment_end_ms = 0
        self._submitted_ms = 0
        self._submitted_s: float | None = None
        """When the job in flight was submitted; None: there is none."""
        self._sent_ms = 0
        self._sent_text = ""

    def segment_ended(self, end_ms: int) -> None:
        """A final segment ends at ``end_ms``: earlier partial results are obsolete."""
        self._segment_end_ms = self._sent_ms = end_ms
        self._sent_text = ""
        self._submitted_s = None

    def submit(self, start_ms: int, end_ms: int, now_s: float) -> bool:
        """Whether to submit a partial job for the open utterance from ``start_ms`` to ``end_ms``.
        If so, the caller submits it at once."""
        if end_ms - max(self._segment_end_ms, start_ms) < self._every_ms:
            return False
        if end_ms - self._submitted_ms < self._interval_ms:
            return False
        if self._submitted_s is not None and now_s - self._submitted_s < PARTIAL_ANSWER_S_MAX:
            return False
        self._submitted_ms = end_ms
        self._submitted_s = now_s
        return True

    def answered(self, end_ms: int, now_s: float) -> None:
        """The result of the job up to ``end_ms`` has arrived."""
        if self._submitted_s is not None and end_ms == self._submitted_ms:
            took_ms = (now_s - self._submitted_s) * 1000
            self._interval_ms = max(self._every_ms, round(PARTIAL_INTERVAL_TIMES * took_ms))
            self._submitted_s = None

    def send(self, end_ms: int, text: str) -> bool:
        """Whether a partial result up to ``end_ms`` is newer than the last one sent. A prefix of
        the last one is not newer: it comes from a worker that processes a lost worker's stream from
        its beginning and has not caught up."""
        behind = len(text) < len(self._sent_text) and self._sent_text.startswith(text)
        if end_ms <= self._sent_ms or behind:
            return False
        self._sent_ms, self._sent_text = end_ms, text
        return True
