"""The messages that follow from a job: to its worker and to its gateway."""

from __future__ import annotations

from broker.jobs import PendingJob
from broker.limits import ATTEMPTS_MAX
from wire import versions
from wire.messages import (
    Claim,
    Claimed,
    Failure,
    Job,
    Refused,
    Result,
    Token,
    WorkerJob,
    WorkerResult,
)

REFUSED = Refused(version_min=versions.VERSION_MIN, version_max=versions.VERSION_MAX)

OVERLOADED = Failure(code="overloaded", message="the queue is full, send the job again later")
DEADLINE = Failure(code="deadline", message="not recognised within the job's deadline")
CHUNK_FAILED = Failure(
    code="chunk_failed", message=f"{ATTEMPTS_MAX} workers were lost while they recognised this"
)


def claimed_of(claim: Claim) -> Claimed:
    """The notice of a gateway's claim for the other gateways."""
    return Claimed(
        session_id=claim.session_id,
        generation=claim.generation,
        resume_token_hash=claim.resume_token_hash,
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
    )


def result_of(entry: PendingJob, answer: WorkerResult, worker_id: str) -> Result:
    """A worker's answer as its gateway receives it. Token times are moved to the session's timeline
    and limited to the segment's end, whatever the worker reports."""
    job = entry.job
    return Result(
        session_id=job.session_id,
        seq=job.seq,
        partial=job.partial,
        start_ms=job.start_ms,
        end_ms=job.end_ms,
        last_chunk_index=job.last_chunk_index,
        text=answer.text,
        error=answer.error,
        tokens=tuple(
            Token(
                text=token.text,
                start_ms=min(job.start_ms + token.start_ms, job.end_ms),
                end_ms=min(job.start_ms + token.end_ms, job.end_ms),
            )
            for token in answer.tokens
        ),
        worker_id=worker_id,
        attempt=entry.attempt,
        queue_ms=_queue_ms(entry),
        infer_ms=answer.infer_ms,
        batch_jobs=answer.batch_jobs,
        generation=job.generation,
        provisional=job.provisional,
        resume_chunk_index=job.resume_chunk_index,
        resume_sample=job.resume_sample,
    )


def failure_of(job: Job, failure: Failure, *, attempt: int) -> Result:
    """The answer to a job that ends without a worker's answer."""
    return Result(
        session_id=job.session_id,
        seq=job.seq,
        partial=job.partial,
        start_ms=job.start_ms,
        end_ms=job.end_ms,
        last_chunk_index=job.last_chunk_index,
        text=None,
        error=failure,
        tokens=(),
        worker_id="",
        attempt=attempt,
        queue_ms=0,
        infer_ms=0,
        generation=job.generation,
        provisional=job.provisional,
        resume_chunk_index=job.resume_chunk_index,
        resume_sample=job.resume_sample,
    )


def _queue_ms(entry: PendingJob) -> int:
    return round((entry.assigned_s - entry.received_s) * 1000)
