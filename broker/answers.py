"""Core: the messages that follow from a job: to its worker and to its gateway."""

from __future__ import annotations

from msgspec.structs import asdict

from broker.jobs import PendingJob
from broker.limits import ATTEMPTS_MAX
from wire import versions
from wire.messages import Failure, Refused, Result, Token, WorkerJob, WorkerResult

REFUSED = Refused(version_min=versions.VERSION_MIN, version_max=versions.VERSION_MAX)

OVERLOADED = Failure(code="overloaded", message="the queue is full, send the job again later")
DEADLINE = Failure(code="deadline", message="not recognised within the job's deadline")
CHUNK_FAILED = Failure(
    code="chunk_failed", message=f"{ATTEMPTS_MAX} workers were lost while they recognised this"
)


def worker_job(entry: PendingJob, broker_epoch: str) -> WorkerJob:
    job = entry.job
    return WorkerJob(
        broker_epoch=broker_epoch,
        job_id=entry.job_id,
        attempt=entry.attempt,
        partial=job.partial,
        language=job.language,
        hotwords=job.hotwords,
        pcm=job.pcm,
        session_id=job.session_id,
        seq=job.seq,
        speakers=job.speakers,
        punctuation=job.punctuation,
        itn=job.itn,
        context=job.context,
    )


def result_of(entry: PendingJob, answer: WorkerResult, worker_id: str) -> Result:
    """A worker's answer as its gateway receives it. Token times are moved to the session's timeline
    and limited to the segment's end, whatever the worker reports."""
    job = entry.job
    outcome = asdict(answer)
    for name in ("broker_epoch", "job_id", "broker_jobs", "held_ms"):
        del outcome[name]
    outcome["tokens"] = tuple(
        Token(
            text=token.text,
            start_ms=min(job.start_ms + token.start_ms, job.end_ms),
            end_ms=min(job.start_ms + token.end_ms, job.end_ms),
        )
        for token in answer.tokens
    )
    queue_ms = round((entry.assigned_s - entry.received_s) * 1000)
    return job.result(worker_id=worker_id, queue_ms=queue_ms, **outcome)
