"""The jobs that the broker has accepted and not answered, and how they are found again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from wire.messages import Job, pcm_duration_ms

K = TypeVar("K")
L = TypeVar("L")

Place = Literal["live", "bulk", "retry", "alone", "partial", "assigned", "nowhere"]
"""Where a job is: in one of the queues (``broker.queues``), with a worker, or in neither, which is
so only before it is queued, between two places, and when it has ended."""


@dataclass(slots=True, eq=False)
class PendingJob:
    """A gateway's job on its way through the broker."""

    job_id: int
    job: Job
    gateway: bytes
    """Who gets the result: the newest sender of the job."""
    audio_ms: int
    received_s: float
    deadline_s: float
    place: Place = "nowhere"
    attempts_lost: int = 0
    timed_out: bool = False
    """One of them was, by its deadline: it, or what was with it, may be what hangs workers."""
    worker: bytes = b""
    """While assigned, the identity of its worker."""
    assigned_s: float = 0.0
    abandoned: bool = False
    """Nobody waits for it any more. Until its worker answers it still holds a credit."""

    @property
    def attempt(self) -> int:
        """The number of the present or next attempt, from 1."""
        return self.attempts_lost + 1


def audio_ms_of(job: Job) -> int:
    """What the job costs, for fairness and for balance. At least 1, so that nothing is free."""
    return max(1, pcm_duration_ms(job.pcm))


def audio_place(job: Job) -> tuple[int, int, float]:
    """Later is newer: how far into its session a job reaches. A final job of a segment comes after
    all its partials."""
    return job.generation, job.seq, job.end_ms if job.partial else math.inf


class JobIndex:
    """Jobs that somebody waits for, by id, by session and by gateway."""

    def __init__(self) -> None:
        self._jobs: dict[int, PendingJob] = {}
        self._finals: dict[str, dict[int, PendingJob]] = {}
        self._partials: dict[str, dict[int, PendingJob]] = {}
        self._by_gateway: dict[bytes, dict[int, PendingJob]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[PendingJob]:
        return iter(self._jobs.values())

    def __contains__(self, job: PendingJob) -> bool:
        return job.job_id in self._jobs

    def add(self, entry: PendingJob) -> None:
        session_id = entry.job.session_id
        self._jobs[entry.job_id] = entry
        if entry.job.partial:
            self._partials.setdefault(session_id, {})[entry.job_id] = entry
        else:
            self._finals.setdefault(session_id, {})[entry.job.seq] = entry
        self._by_gateway.setdefault(entry.gateway, {})[entry.job_id] = entry

    def remove(self, entry: PendingJob) -> None:
        session_id = entry.job.session_id
        del self._jobs[entry.job_id]
        if entry.job.partial:
            _remove(self._partials, session_id, entry.job_id)
        else:
            _remove(self._finals, session_id, entry.job.seq)
        _remove(self._by_gateway, entry.gateway, entry.job_id)

    def final(self, session_id: str, seq: int) -> PendingJob | None:
        jobs = self._finals.get(session_id)
        return None if jobs is None else jobs.get(seq)

    def partials(self, session_id: str) -> list[PendingJob]:
        jobs = self._partials.get(session_id)
        return [] if jobs is None else list(jobs.values())

    def of_session(self, session_id: str) -> list[PendingJob]:
        return [*self._finals.get(session_id, {}).values(), *self.partials(session_id)]

    def of_gateway(self, gateway: bytes) -> list[PendingJob]:
        return list(self._by_gateway.get(gateway, {}).values())

    def give_to(self, entry: PendingJob, gateway: bytes) -> None:
        """From now on ``gateway`` gets the result."""
        _remove(self._by_gateway, entry.gateway, entry.job_id)
        entry.gateway = gateway
        self._by_gateway.setdefault(gateway, {})[entry.job_id] = entry

    def validate(self) -> None:
        by_session = [
            (entry.job_id, entry)
            for index in (self._finals, self._partials)
            for jobs in index.values()
            for entry in jobs.values()
        ]
        by_gateway = [pair for jobs in self._by_gateway.values() for pair in jobs.items()]
        assert all([*self._finals.values(), *self._partials.values(), *self._by_gateway.values()])
        assert len(by_session) == len(by_gateway) == len(self._jobs)
        assert dict(by_session) == dict(by_gateway) == self._jobs
        assert all(
            entry.job_id in self._by_gateway[entry.gateway] and not entry.abandoned
            for entry in self._jobs.values()
        )


def _remove(index: dict[K, dict[L, PendingJob]], key: K, item: L) -> None:
    jobs = index[key]
    del jobs[item]
    if not jobs:
        del index[key]
