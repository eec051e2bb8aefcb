"""Core: jobs that the broker has accepted and not answered, and their indexes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from wire.messages import STREAMED_PARTIAL_MS, Job, pcm_duration_ms

K = TypeVar("K")
L = TypeVar("L")

Location = Literal["live", "bulk", "retry", "exclusive", "partial", "assigned", "nowhere"]
"""One of the queues (``broker.queues``), a worker (``assigned``), or neither: before a job is
queued, between two queues, and after its end."""


@dataclass(slots=True, eq=False)
class PendingJob:
    """A gateway's job on its way through the broker."""

    job_id: int
    job: Job
    gateway: bytes
    """Receives the result: the gateway that sent the job last."""
    audio_ms: int
    received_s: float
    deadline_s: float
    model: str = ""
    """Served name of the model whose queue or worker has it."""
    location: Location = "nowhere"
    attempts_lost: int = 0
    lost_by: set[bytes] = field(default_factory=set)
    """Workers that may have ended because of it: they held it when they became unreachable."""
    excused: int = 0
    """Lost attempts of workers that have reconnected. A worker's identity belongs to one process,
    so the job has not killed it; only its connection was lost."""
    timed_out: bool = False
    """An attempt reached its deadline: this job, or another one of its batch, may hang workers."""
    assigned_s: float = 0.0
    work_s: float = 0.0
    """Expected time that its worker takes for it …"""
    expected_s: float = 0.0
    """… and for everything that the worker held when it was assigned, itself included."""
    abandoned: bool = False
    """The result is no longer needed. The job holds a credit until its worker answers."""

    @property
    def charged(self) -> int:
        """Lost attempts that the job itself may have caused; at ``ATTEMPTS_MAX`` it fails."""
        return self.attempts_lost - self.excused

    @property
    def attempt(self) -> int:
        """Number of the current or next attempt, from 1."""
        return self.attempts_lost + 1


def audio_ms_of(job: Job, *, streamed: bool = False) -> int:
    """Cost of the job for fairness and load balancing. At least 1, so that no job is free.
    ``streamed``: partial jobs go to a streaming model."""
    audio_ms = max(1, pcm_duration_ms(job.pcm))
    return min(audio_ms, STREAMED_PARTIAL_MS) if streamed and job.partial else audio_ms


def timeline_key(job: Job) -> tuple[int, int, float]:
    """Orders the jobs of a session by how far they reach on its timeline. The final job of a
    segment comes after all its partial jobs."""
    return job.generation, job.seq, job.end_ms if job.partial else math.inf


class JobIndex:
    """Jobs whose results are needed, by id, by session and by gateway."""

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

    def move(self, entry: PendingJob, gateway: bytes) -> None:
        """From now on ``gateway`` receives the result."""
        _remove(self._by_gateway, entry.gateway, entry.job_id)
        entry.gateway = gateway
        self._by_gateway.setdefault(gateway, {})[entry.job_id] = entry


def _remove(index: dict[K, dict[L, PendingJob]], key: K, item: L) -> None:
    jobs = index[key]
    del jobs[item]
    if not jobs:
        del index[key]
