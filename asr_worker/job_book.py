"""Core: the jobs of one worker, from arrival to result, and its registration with each broker.

Messages from the broker go in; messages to send and counts come out. A job is *held* from its
arrival until its result is taken, and *running* once it is in a batch. The book validates what the
broker sends: no message makes it raise.

Several brokers share a worker. Each is granted an equal part of the credits, so that the worker
holds no more jobs than with one broker, and no broker can use up the credits of another. No broker
knows the assignments of the others. The jobs of all form one queue and share batches, so that a
broker without jobs leaves its part of the *time* to the others. With a second broker, the credits
of one still fill a batch.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import asdict, replace

from asr_worker.batching import BatchLimits, BatchQueue
from asr_worker.recognizer.protocol import Recognition
from wire import versions
from wire.messages import (
    STREAMED_PARTIAL_MS,
    Bye,
    JobAttempt,
    Mark,
    MarkArrived,
    Message,
    Ready,
    Refused,
    Welcome,
    WorkerJob,
    WorkerResult,
    pcm_duration_ms,
)

CREDITS_PER_BATCH_JOB = 2
"""Enough to fill the next batch while the current one runs."""
ANSWERED_MAX = 4_096
"""Jobs remembered after their result, so that a copy still in transit does not run again. Beyond
this the oldest is forgotten, and the broker drops the second result by its attempt."""


class JobsDiscarded(Struct, frozen=True):
    """Action: count jobs dropped without a result."""

    reason: str
    jobs: int = 1


class MessageRejected(Struct, frozen=True):
    """Action: count a message that is not for workers, or refuses this one."""

    reason: str


Action = Message | JobsDiscarded | MessageRejected


class JobKey(Struct, frozen=True):
    """One attempt at one job in one epoch of the broker."""

    broker_epoch: str
    job_id: int
    attempt: int


def key_of(job: WorkerJob | WorkerResult) -> JobKey:
    return JobKey(job.broker_epoch, job.job_id, job.attempt)


class JobBook:
    """The book of one broker. ``another`` makes that of a further one, with the same jobs: each
    book's ``queued``, ``take_batch`` and ``answer`` are those of all. The caller performs the
    returned actions in order; results go to the broker with the ``epoch`` that they name.
    """

    def __init__(self, worker: Ready, limits: BatchLimits) -> None:
        """``worker``: its registration; credits, cost and versions are added."""
        self._limits = limits
        credits = CREDITS_PER_BATCH_JOB * limits.jobs_max
        streamed_credits = CREDITS_PER_BATCH_JOB * limits.streamed_jobs_max
        self._ready = replace(
            worker,
            credits=credits,
            cost=limits.cost,
            streamed_credits=streamed_credits,
            streamed_s=limits.streamed_s,
            version_min=versions.VERSION_MIN,
            version_max=versions.VERSION_MAX,
        )
        # A broker that forgot this worker may use all credits while an older batch still runs.
        # After a new connection it may use them twice: before it has the ``Ready``, and after.
        self._held_max = 2 * (credits + streamed_credits)
        self._held_max += limits.jobs_max + limits.streamed_jobs_max
        self._queue: BatchQueue[JobKey] = BatchQueue(limits)
        self._jobs: dict[JobKey, WorkerJob] = {}
        self._answered: OrderedDict[JobKey, None] = OrderedDict()
        self.epoch: str | None = None
        """The broker's epoch; None: not known yet."""
        self._brokers = 1
        self._welcome_due = False
        self._draining = False

    def another(self) -> JobBook:
        """Return a book for a further broker."""
        book = copy.copy(self)
        book.epoch, book._welcome_due = None, False
        return book

    def share(self, brokers: int) -> None:
        """Set the number of brokers that share the worker."""
        self._brokers = max(1, brokers)

    @property
    def credits(self) -> int:
        """Jobs that this broker may assign now, at least one."""
        return -(-self._ready.credits // self._brokers)

    @property
    def streamed_credits(self) -> int:
        return -(-self._ready.streamed_credits // self._brokers)

    @property
    def queued(self) -> int:
        """Jobs that are not in a batch yet."""
        return len(self._queue)

    @property
    def fills_a_batch(self) -> bool:
        """More jobs would not make the next batch larger."""
        return self._queue.fills_a_batch

    def introduce(self) -> Ready:
        """Return the registration: the first message, and the answer to an unknown broker."""
        self._welcome_due = True
        return replace(self._ready, credits=self.credits, streamed_credits=self.streamed_credits)

    def reconnected(self) -> Sequence[Action]:
        """A new connection to the broker was made. Messages in transit on the previous connection
        are lost in both directions, so the worker reports the jobs that it holds."""
        if self._draining:
            return [self._bye([])]
        # A copy of an answered job is no longer in transit: its result was lost. Brokers of earlier
        # releases assign such a job again under the same number.
        for key in [key for key in self._answered if key.broker_epoch == self.epoch]:
            del self._answered[key]
        held = [key for key in self._jobs if key.broker_epoch == self.epoch]
        attempts = (JobAttempt(job_id=key.job_id, attempt=key.attempt) for key in held)
        return [replace(self.introduce(), broker_epoch=self.epoch or "", held=tuple(attempts))]

    def receive(self, message: Message) -> Sequence[Action]:
        match message:
            case WorkerJob():
                return self._receive_job(message)
            case Welcome():
                return self._receive_welcome(message)
            case Mark():
                return [MarkArrived(number=message.number)]
            case Refused():
                # The next Welcome, in answer to a heartbeat, asks for another Ready.
                self._welcome_due = False
                return [MessageRejected(versions.reason_of(message))]
            case _:
                return [MessageRejected("not_for_workers")]

    def limit_jobs(self, jobs_max: int) -> None:
        """The model has turned out to take at most ``jobs_max`` utterances in a batch."""
        self._queue.limit_jobs(jobs_max)

    def take_batch(self) -> list[WorkerJob]:
        """Start the next batch; empty while draining. Pass its recognitions to ``answer``."""
        return [self._jobs[key] for key in self._queue.take_batch()]

    def expected_s(self, batch: Sequence[WorkerJob]) -> float:
        """Expected duration of a batch, by the trial."""
        longest_ms = max(pcm_duration_ms(job.pcm) for job in batch)
        return self._limits.cost.expected_s(len(batch), longest_ms * len(batch))

    def answer(
        self, batch: Sequence[WorkerJob], recognitions: Sequence[Recognition], infer_ms: int
    ) -> list[WorkerResult]:
        """End a batch of ``take_batch``: return its results, in the same order."""
        results = []
        of_broker = Counter(job.broker_epoch for job in batch)
        for job, recognition in zip(batch, recognitions, strict=True):
            key, found = key_of(job), asdict(recognition)
            del self._jobs[key]
            self._answered[key] = None
            results.append(
                WorkerResult(
                    broker_epoch=job.broker_epoch,
                    job_id=job.job_id,
                    attempt=job.attempt,
                    error=found.pop("failure"),
                    infer_ms=infer_ms,
                    batch_jobs=len(batch),
                    broker_jobs=of_broker[job.broker_epoch],
                    **found,
                )
            )
        while len(self._answered) > ANSWERED_MAX:
            self._answered.popitem(last=False)
        return results

    def drain(self) -> Bye:
        """Accept no more jobs and return those that are not running. Running jobs get results."""
        self._draining = True
        return self._bye(self.forget_queue())

    def give_up(self) -> Bye:
        """Return the running jobs as well, because their batch will not end in time."""
        return self._bye(list(self._jobs))

    def _bye(self, keys: list[JobKey]) -> Bye:
        return Bye(
            worker_id=self._ready.worker_id,
            broker_epoch=self.epoch or "",
            returned=tuple(
                JobAttempt(job_id=key.job_id, attempt=key.attempt)
                for key in keys
                if key.broker_epoch == self.epoch
            ),
        )

    def _receive_welcome(self, welcome: Welcome) -> Sequence[Action]:
        """The broker sends Welcome in answer to Ready, or because it does not know this worker:
        after its restart, or after this worker's silence. In the second case it has given this
        worker's jobs to others and waits for Ready.

        A Welcome that arrives while a Ready is in transit counts as the answer: a broker that does
        not know this worker repeats it, whereas a second Ready would discard the jobs that arrived
        after the first.
        """
        was_due, self._welcome_due = self._welcome_due, False
        is_new = self.epoch != welcome.broker_epoch
        if was_due and not is_new:
            return []
        actions: list[Action] = []
        forgotten = len(self.forget_queue())
        self.epoch = welcome.broker_epoch
        if forgotten:
            actions.append(JobsDiscarded("old_epoch" if is_new else "forgotten", forgotten))
        if not was_due and not self._draining:
            actions.append(self.introduce())
        return actions

    def _receive_job(self, job: WorkerJob) -> Sequence[Action]:
        key = key_of(job)
        if self.epoch is None:
            self.epoch = job.broker_epoch
        if key in self._jobs or key in self._answered:
            return [JobsDiscarded("duplicate")]
        if job.broker_epoch != self.epoch:
            return [JobsDiscarded("old_epoch")]
        if self._draining:
            # In transit when this worker sent Bye. A second Bye spares the broker the wait.
            return [JobsDiscarded("draining"), self._bye([key])]
        if sum(held.broker_epoch == self.epoch for held in self._jobs) >= self._held_max:
            # Only a broker that ignores the credits gets here; its deadline moves the job on.
            return [JobsDiscarded("over_credit")]
        # The broker accepts only the newest result of a job.
        older = self._forget_queued(
            lambda held: (held.broker_epoch, held.job_id) == (key.broker_epoch, key.job_id)
        )
        self._jobs[key] = job
        audio_ms = pcm_duration_ms(job.pcm)
        streamed = job.partial and self._limits.streamed_jobs_max > 0
        self._queue.add(
            key,
            audio_ms=min(audio_ms, STREAMED_PARTIAL_MS) if streamed else audio_ms,
            partial=job.partial,
            options=None if streamed else self._options(job),
            streamed=streamed,
        )
        return [JobsDiscarded("superseded", len(older))] if older else []

    def _options(self, job: WorkerJob) -> tuple[str, tuple[str, ...]]:
        """Return the options of the model's call for ``job``; jobs with other options need another
        call."""
        can = self._ready.abilities
        hotwords = job.hotwords if can.hotwords != "none" else ()
        return job.language if can.takes_language else "", hotwords

    def forget_queue(self) -> list[JobKey]:
        """Forget the broker's jobs that are not running, and return them in order of arrival."""
        return self._forget_queued(lambda held: held.broker_epoch == self.epoch)

    def _forget_queued(self, chosen: Callable[[JobKey], bool]) -> list[JobKey]:
        keys = [key for key in self._jobs if chosen(key) and key in self._queue]
        for key in keys:
            self._queue.remove(key)
            del self._jobs[key]
        return keys


class JobBooks:
    """A book for each broker, by the broker's place (``runtime.broker_addresses``)."""

    def __init__(self, first: JobBook) -> None:
        """``first``: the book from which the others are made."""
        self._first = first
        self.by_place: dict[str, JobBook] = {}

    def follow(
        self, places: Collection[str], connected: int, new: Iterable[str]
    ) -> list[tuple[str, Action]]:
        """The worker has links to these places, ``connected`` of them with a connection, and the
        ``new`` ones with one that was made since the last call. Each broker has a part of the
        credits of those connected. Returns the actions, with their places."""
        for place in places:
            self.by_place.setdefault(place, self._first.another())
        gone = [place for place in self.by_place if place not in places]
        lost = {place: len(self.by_place.pop(place).forget_queue()) for place in gone}
        actions: list[tuple[str, Action]] = [
            (place, JobsDiscarded("forgotten", jobs)) for place, jobs in lost.items() if jobs
        ]
        for book in self.by_place.values():
            book.share(connected)
        for place in new:
            actions += [(place, action) for action in self.by_place[place].reconnected()]
        return actions

    def place_of(self, result: WorkerResult) -> str | None:
        """Place of the broker that assigned the result's job; None: that is gone or has restarted,
        and gateways send the job again."""
        places = (p for p, book in self.by_place.items() if book.epoch == result.broker_epoch)
        return next(places, None)
