"""The jobs of one worker, from arrival to answer, and its standing with the broker. No I/O.

Messages go in, messages to send come out. A job is *held* from its arrival until its results are
taken, and *running* once it is in a batch. What the broker sends is checked here: nothing it can
send makes the book raise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from asr_worker.batching import BatchLimits, BatchQueue
from asr_worker.metrics import FRAMES_REJECTED, JOBS_DISCARDED
from asr_worker.recognizer import Recognition
from wire import versions
from wire.messages import (
    Bye,
    Message,
    Ready,
    Refused,
    ReturnedJob,
    Welcome,
    WorkerJob,
    WorkerResult,
    pcm_duration_ms,
)

CREDITS_PER_BATCH_JOB = 2
"""Enough to fill the next batch while the present one runs."""
ANSWERED_MAX = 4_096
"""Jobs remembered after their answer, so that a copy still under way is not run again; beyond it
the oldest are forgotten, and the broker drops the second answer by its attempt."""


@dataclass(frozen=True, slots=True)
class JobKey:
    """One attempt at one job in one life of the broker."""

    broker_epoch: str
    job_id: int
    attempt: int


def key_of(job: WorkerJob) -> JobKey:
    return JobKey(job.broker_epoch, job.job_id, job.attempt)


class JobBook:
    """Send what its methods return, in order. ``worker_id`` is this process's identity."""

    def __init__(
        self,
        *,
        worker_id: str,
        model: str,
        device: str,
        limits: BatchLimits,
        throughput_rtfx: float = 0.0,
    ) -> None:
        self._worker_id = worker_id
        credits = CREDITS_PER_BATCH_JOB * limits.jobs_max
        self._ready = Ready(
            worker_id=worker_id,
            credits=credits,
            model=model,
            device=device,
            throughput_rtfx=throughput_rtfx,
            version_min=versions.VERSION_MIN,
            version_max=versions.VERSION_MAX,
        )
        # A broker that forgot us gives new credits while a batch of the old ones still runs.
        self._held_max = credits + limits.jobs_max
        self._queue: BatchQueue[JobKey] = BatchQueue(limits)
        self._jobs: dict[JobKey, WorkerJob] = {}
        self._answered: OrderedDict[JobKey, None] = OrderedDict()
        self._epoch: str | None = None
        self._welcome_due = False
        self._draining = False

    @property
    def queued(self) -> int:
        """Jobs in no batch yet."""
        return len(self._queue)

    @property
    def fills_a_batch(self) -> bool:
        """More jobs would not make the next batch larger."""
        return self._queue.fills_a_batch

    def introduce(self) -> Ready:
        """The first message, and the answer to a broker that doesn't know us."""
        self._welcome_due = True
        return self._ready

    def receive(self, message: Message) -> list[Message]:
        """Answers to a message from the broker."""
        match message:
            case WorkerJob():
                return self._receive_job(message)
            case Welcome():
                return self._receive_welcome(message)
            case Refused():
                # The next Welcome, to a heartbeat, asks for another Ready.
                self._welcome_due = False
                FRAMES_REJECTED.labels(reason="version_refused").inc()
                return []
            case _:
                FRAMES_REJECTED.labels(reason="not_for_workers").inc()
                return []

    def take_batch(self) -> list[WorkerJob]:
        """The next jobs to run, none while draining. Hand their recognitions to ``answer``."""
        return [self._jobs[key] for key in self._queue.take_batch()]

    def answer(
        self, batch: Sequence[WorkerJob], recognitions: Sequence[Recognition], infer_ms: int
    ) -> list[WorkerResult]:
        """Results of a batch that ``take_batch`` gave, in its order."""
        results = []
        for job, recognition in zip(batch, recognitions, strict=True):
            key = key_of(job)
            del self._jobs[key]
            self._answered[key] = None
            results.append(
                WorkerResult(
                    broker_epoch=job.broker_epoch,
                    job_id=job.job_id,
                    attempt=job.attempt,
                    text=recognition.text,
                    error=recognition.failure,
                    tokens=recognition.tokens,
                    language=recognition.language,
                    confidence=recognition.confidence,
                    infer_ms=infer_ms,
                    batch_jobs=len(batch),
                )
            )
        while len(self._answered) > ANSWERED_MAX:
            self._answered.popitem(last=False)
        return results

    def drain(self) -> Bye:
        """Take no more jobs and give back those in no batch. What runs is still to be answered."""
        self._draining = True
        return self._bye(self._forget_queue())

    def give_up(self) -> Bye:
        """Give back what runs as well: its batch will not end in time."""
        return self._bye(list(self._jobs))

    def _bye(self, keys: list[JobKey]) -> Bye:
        return Bye(
            worker_id=self._worker_id,
            broker_epoch=self._epoch or "",
            returned=tuple(
                ReturnedJob(job_id=key.job_id, attempt=key.attempt)
                for key in keys
                if key.broker_epoch == self._epoch
            ),
        )

    def _receive_welcome(self, welcome: Welcome) -> list[Message]:
        """The broker says Welcome to our Ready, or because it does not know us: after its restart
        or after our silence. Either way it gave our jobs to others, and waits for our Ready.

        A Welcome while our Ready is under way may be meant either way. Taking it for the answer is
        safe: a broker that does not know us says it again, whereas a second Ready would cost us
        the jobs that came after the first.
        """
        was_due, self._welcome_due = self._welcome_due, False
        is_new, self._epoch = self._epoch != welcome.broker_epoch, welcome.broker_epoch
        if was_due and not is_new:
            return []
        reason = "old_epoch" if is_new else "forgotten"
        JOBS_DISCARDED.labels(reason=reason).inc(len(self._forget_queue()))
        return [] if was_due or self._draining else [self.introduce()]

    def _receive_job(self, job: WorkerJob) -> list[Message]:
        key = key_of(job)
        if self._epoch is None:
            self._epoch = job.broker_epoch
        if key in self._jobs or key in self._answered:
            return self._discard("duplicate")
        if job.broker_epoch != self._epoch:
            return self._discard("old_epoch")
        if self._draining:
            # It was under way when we said Bye; said again, the broker need not wait for it.
            JOBS_DISCARDED.labels(reason="draining").inc()
            return [self._bye([key])]
        if len(self._jobs) >= self._held_max:
            # Only a broker that ignores our credits gets here; its deadline moves the job on.
            return self._discard("over_credit")
        self._drop_older_attempts(key)
        self._jobs[key] = job
        self._queue.add(key, audio_ms=pcm_duration_ms(job.pcm), partial=job.partial)
        return []

    def _drop_older_attempts(self, key: JobKey) -> None:
        """The broker accepts only the newest attempt's result."""
        for held in list(self._jobs):
            if held.job_id == key.job_id and held in self._queue:
                self._queue.remove(held)
                del self._jobs[held]
                self._discard("superseded")

    def _discard(self, reason: str) -> list[Message]:
        JOBS_DISCARDED.labels(reason=reason).inc()
        return []

    def _forget_queue(self) -> list[JobKey]:
        keys = self._queue.clear()
        for key in keys:
            del self._jobs[key]
        return keys
