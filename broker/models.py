"""Core: the served models. Each has a queue and workers of its own, so that none delays another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import asdict

from broker import limits as limit
from broker.arrivals import ArrivalRate
from broker.jobs import PendingJob
from broker.partials import PartialBudget
from broker.queues import JobQueue
from broker.workers import Worker, WorkerPool
from wire.messages import Abilities, HotwordUse, Ready, ServedModel

HOTWORD_USES: tuple[HotwordUse, ...] = ("none", "words", "weights")
"""Each includes those before it."""


class Model:
    """One served model: the jobs that wait for it, and its workers."""

    def __init__(self, name: str, limits: limit.Limits) -> None:
        self.name = name
        self.queue = JobQueue(limits)
        self.workers = WorkerPool()
        self.arrivals = ArrivalRate()
        self.partials = PartialBudget()
        self.unused_since_s: float | None = None
        """Since when it has had neither a worker nor a waiting job; None: it has one."""

    @property
    def takes_jobs(self) -> bool:
        """False: its jobs wait for the first worker."""
        return any(self.workers.taking)

    def advance(self, now_s: float) -> None:
        """Update the averages over time."""
        self.arrivals.advance(now_s)
        workers = len(list(self.workers.taking))
        utilisation = self.arrivals.per_s / self.workers.throughput_rtfx if workers else 1.0
        self.partials.advance(now_s, workers=workers, utilisation=utilisation)

    def next_for(self, worker: Worker) -> PendingJob | None:
        """Take the next job for ``worker``. Partial jobs must hardly delay the next final one."""
        partial = self.queue.oldest_partial
        may_be_partial = (
            not self.queue.finals
            and not self.workers.stream
            and partial is not None
            and self.partials.left
            and self.workers.takes_partial(worker, partial)
        )
        may_be_bulk = worker.held_s <= limit.BULK_DELAY_S_MAX
        entry = self.queue.pop(bulk=may_be_bulk, partials=may_be_partial)
        if entry is not None and entry.job.partial:
            self.partials.spend(worker.throughput.work_s(1, entry.audio_ms))
        return entry

    def next_streamed(self) -> tuple[Worker, PendingJob] | None:
        """Take the next partial job for a streaming model from the queue, with its worker. Such
        jobs have credits of their own; final jobs still go first, and the budget is the same."""
        entry = self.queue.oldest_partial
        if entry is None or self.queue.finals or not self.workers.stream or not self.partials.left:
            return None
        worker = self.workers.for_stream(entry)
        if worker is None:
            return None
        self.queue.remove(entry)
        self.partials.spend(self.workers.work_s(worker, entry))
        return worker, entry

    @property
    def est_wait_ms(self) -> int:
        """Expected time to the result of a live job that arrives now. Held jobs count with their
        whole time, though some of it has passed: on average this makes up for the time of the job
        itself, whose length is unknown."""
        jobs = self.queue.urgent_jobs + self.workers.held - self.workers.held_streamed
        if not jobs:
            return 0
        if not self.takes_jobs:
            return limit.EST_WAIT_REPORTED_MS_MAX
        wait_s = self.workers.wait_s(jobs, self.queue.urgent_audio_ms + self.workers.held_audio_ms)
        return min(round(1000 * wait_s), limit.EST_WAIT_REPORTED_MS_MAX)

    def state(self, *, expected_audio_rate: float) -> ServedModel:
        """The model as gateways receive it in ``Load``."""
        workers = list(self.workers.taking)
        return ServedModel(
            name=self.name,
            model=min((worker.model for worker in workers), default=""),
            workers=len(workers),
            workers_busy=sum(bool(worker.held) for worker in workers),
            throughput_rtfx=self.workers.throughput_rtfx,
            queued_audio_ms=self.queue.audio_ms,
            est_wait_ms=self.est_wait_ms,
            utterance_ms=round(1000 * self.workers.utterance_s),
            arriving_audio_rate=self.arrivals.per_s,
            expected_audio_rate=expected_audio_rate,
            partials_busy=self.partials.per_s,
            abilities=common_abilities(worker.abilities for worker in workers),
        )


def common_abilities(all_of: Iterable[Abilities]) -> Abilities:
    """Return the abilities that all of ``all_of`` share; if it is empty, nothing is known."""
    different = list(dict.fromkeys(all_of)) or [Abilities()]
    first = different[0]
    languages = (name for name in first.languages if all(name in e.languages for e in different))
    flags = {
        name: all(getattr(each, name) for each in different)
        for name, value in asdict(first).items()
        if isinstance(value, bool)
    }
    return Abilities(
        languages=tuple(languages),
        hotwords=min((each.hotwords for each in different), key=HOTWORD_USES.index),
        batch_jobs=min(each.batch_jobs for each in different),
        **flags,
    )


class Models:
    """All models, at most ``MODELS_MAX``, and their workers by identity. One named ``""`` holds the
    jobs for any model while there is no worker."""

    def __init__(self, limits: limit.Limits) -> None:
        self._limits = limits
        self._models: dict[str, Model] = {}
        self._workers: dict[bytes, Worker] = {}

    def __len__(self) -> int:
        return len(self._models)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def open(self, name: str) -> Model | None:
        """The model, new if there was none. None: there are too many."""
        model = self._models.get(name)
        if model is None and len(self._models) < limit.MODELS_MAX:
            model = self._models[name] = Model(name, self._limits)
        return model

    def route(self, name: str) -> Model | None:
        """The model for a job that asks for ``name``; ``""`` asks for any, and gets the one with
        the shortest expected wait among those with workers. None: there are too many."""
        if not name:
            served = [model for model in self if model.takes_jobs]
            if len(served) == 1:  # The expected wait takes time for each worker.
                return served[0]
            if served:
                return min(served, key=lambda model: model.est_wait_ms)
        return self.open(name)

    def forget_unused(self, now_s: float) -> None:
        for model in list(self):
            if len(model.workers) or len(model.queue):
                model.unused_since_s = None
            elif model.unused_since_s is None:
                model.unused_since_s = now_s
            elif not model.name or now_s - model.unused_since_s > limit.MODEL_REMEMBERED_S:
                del self._models[model.name]

    # ------------------------------------------------------------------------------------- workers

    @property
    def workers(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    @property
    def worker_count(self) -> int:
        return len(self._workers)

    def worker(self, identity: bytes) -> Worker | None:
        return self._workers.get(identity)

    def pool(self, worker: Worker) -> WorkerPool:
        """The workers among which ``worker`` is chosen."""
        return self._models[worker.served_name].workers

    def add(self, identity: bytes, ready: Ready, now_s: float) -> Model | None:
        """Register a worker, which must not be registered. None: there are too many models."""
        model = self.open(ready.served_name or ready.model)
        if model is not None:
            self._workers[identity] = model.workers.add(identity, ready, now_s)
        return model

    def remove(self, worker: Worker) -> list[PendingJob]:
        """Unregister a worker. Returns the jobs that it held, oldest first."""
        del self._workers[worker.identity]
        return self.pool(worker).remove(worker)
