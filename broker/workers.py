"""The workers: what each holds, what it may take, who takes the next job, and how fast they are."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from broker import limits as limit
from broker.jobs import PendingJob
from wire.messages import Ready

STALE_ENTRIES_MAX = 64
"""Outdated heap entries kept beyond four per worker; then the heap is rebuilt."""

Attempt = tuple[int, int]
"""Job id and attempt."""


class Throughput:
    """Seconds of audio per busy second, forgetting slowly.

    Busy time is counted when results come: a batch counts with all its audio at once, and a worker
    that gives no result is none slower for it. It is its lease and deadlines that judge it.
    """

    def __init__(self, told_rtfx: float) -> None:
        self._busy_s = limit.THROUGHPUT_INITIAL_WEIGHT_S
        self._audio_s = (told_rtfx or limit.THROUGHPUT_INITIAL_RTFX) * self._busy_s

    @property
    def factor(self) -> float:
        return max(self._audio_s / self._busy_s, limit.THROUGHPUT_MIN_RTFX)

    def note(self, audio_ms: int, busy_s: float) -> None:
        keep = 0.5 ** (busy_s / limit.THROUGHPUT_HALF_LIFE_S)
        self._busy_s = self._busy_s * keep + busy_s
        self._audio_s = self._audio_s * keep + audio_ms / 1000


class PastAttempts:
    """Attempts that were a worker's and are not any more; a result of one is late, or double."""

    def __init__(self) -> None:
        self._attempts: OrderedDict[Attempt, None] = OrderedDict()

    def __contains__(self, attempt: Attempt) -> bool:
        return attempt in self._attempts

    def add(self, attempt: Attempt) -> None:
        self._attempts[attempt] = None
        if len(self._attempts) > limit.PAST_ATTEMPTS_MAX:
            self._attempts.popitem(last=False)


class Worker:
    """One worker's standing. Changed by ``WorkerPool`` only."""

    def __init__(self, identity: bytes, ready: Ready, past: PastAttempts, now_s: float) -> None:
        self.identity = identity
        self.worker_id = ready.worker_id
        self.model = ready.model
        self.credits = min(ready.credits, limit.CREDITS_MAX)
        self.heard_s = now_s
        self.held: dict[int, PendingJob] = {}
        self.held_audio_ms = 0
        self.overdue: dict[Attempt, float] = {}
        """Attempts given up though the worker may be busy with them, and since when."""
        self.past = past
        self.throughput = Throughput(ready.throughput_rtfx)
        self.measured_s = now_s
        self.draining = False
        self.reserved = False
        """Takes nothing more until it is idle, because a job must run alone."""
        self.alone = False
        """Has such a job."""
        self.offences = 0
        self.ticket = 0
        """Number of its valid heap entry; 0: none, because it may take nothing."""

    @property
    def free_credits(self) -> int:
        return self.credits - len(self.held) - len(self.overdue)

    @property
    def idle(self) -> bool:
        return not self.held and not self.overdue

    @property
    def takes_jobs(self) -> bool:
        """An overdue attempt may mean that it hangs, and then more would hang with it."""
        barred = self.draining or self.reserved or self.alone or self.overdue
        return not barred and len(self.held) < self.credits


class WorkerPool:
    """Registered workers, the least loaded first; O(log workers)."""

    def __init__(self) -> None:
        self._workers: dict[bytes, Worker] = {}
        self._gone: OrderedDict[bytes, PastAttempts] = OrderedDict()
        self._heap: list[tuple[int, int, Worker]] = []
        self._tickets = 0
        self._reserved: Worker | None = None
        self._assigned: OrderedDict[int, PendingJob] = OrderedDict()
        self.held_audio_ms = 0
        self.held_partials = 0
        self.credits = 0

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def get(self, identity: bytes) -> Worker | None:
        return self._workers.get(identity)

    def add(self, identity: bytes, ready: Ready, now_s: float) -> Worker:
        """Register a worker that is not registered."""
        assert identity not in self._workers
        past = self._gone.pop(identity, None) or PastAttempts()
        worker = self._workers[identity] = Worker(identity, ready, past, now_s)
        self.credits += worker.credits
        self._place(worker)
        return worker

    def remove(self, worker: Worker) -> list[PendingJob]:
        """Forget a worker. Returns the jobs that it held, oldest first."""
        jobs = list(worker.held.values())
        for entry in jobs:
            self.take_back(worker, entry)
        del self._workers[worker.identity]
        self._gone[worker.identity] = worker.past
        if len(self._gone) > limit.PAST_WORKERS_MAX:
            self._gone.popitem(last=False)
        if self._reserved is worker:
            self._reserved = None
        self.credits -= worker.credits
        worker.ticket = 0
        return jobs

    # ---------------------------------------------------------------------------- whose turn it is

    def least_loaded(self) -> Worker | None:
        """The worker for the next job: of those that may take one, that with the least audio."""
        while self._heap:
            _, ticket, worker = self._heap[0]
            if worker.ticket == ticket:
                return worker
            heapq.heappop(self._heap)
        return None

    def reserve_idle(self) -> Worker | None:
        """An idle worker for a job that must run alone. If there is none now, one is kept free
        from other work until it is idle; ask again after each change."""
        worker = self._reserved or self.least_loaded()
        if worker is None:
            return None
        if worker.idle:
            self.unreserve()
            return worker
        worker.reserved = True
        self._reserved = worker
        self._place(worker)
        return None

    def unreserve(self) -> None:
        if self._reserved is not None:
            worker, self._reserved = self._reserved, None
            worker.reserved = False
            self._place(worker)

    @property
    def takes_partials(self) -> bool:
        return self.held_partials < max(1, self.credits // limit.PARTIAL_CREDITS_SHARE)

    # ------------------------------------------------------------------------------ what they hold

    @property
    def held(self) -> int:
        """Jobs assigned and not answered."""
        return len(self._assigned)

    @property
    def longest_held(self) -> PendingJob | None:
        return next(iter(self._assigned.values()), None)

    def assign(self, worker: Worker, entry: PendingJob, now_s: float, *, alone: bool) -> None:
        assert worker.takes_jobs and entry.place == "nowhere"
        if not worker.held:
            worker.measured_s = now_s
        entry.place = "assigned"
        entry.worker = worker.identity
        entry.assigned_s = now_s
        worker.alone = alone
        worker.held[entry.job_id] = entry
        worker.held_audio_ms += entry.audio_ms
        self._assigned[entry.job_id] = entry
        self.held_audio_ms += entry.audio_ms
        self.held_partials += entry.job.partial
        self._place(worker)

    def complete(self, worker: Worker, entry: PendingJob, now_s: float, infer_ms: int) -> None:
        """The worker's answer to ``entry`` has come, from a batch that took ``infer_ms``."""
        # A worker lets jobs gather before it begins; then it has some, but is not busy. The half
        # is for what rounding took: a batch of no time at all would mean boundless throughput.
        busy_s = min(now_s - worker.measured_s, (infer_ms + 0.5) / 1000)
        worker.throughput.note(entry.audio_ms, busy_s)
        worker.measured_s = now_s
        self.take_back(worker, entry)

    def take_back(self, worker: Worker, entry: PendingJob) -> None:
        """``entry`` is the worker's no longer; the caller says what becomes of it."""
        entry.place = "nowhere"
        del worker.held[entry.job_id]
        worker.past.add((entry.job_id, entry.attempt))
        worker.held_audio_ms -= entry.audio_ms
        worker.alone = worker.alone and bool(worker.held)
        del self._assigned[entry.job_id]
        self.held_audio_ms -= entry.audio_ms
        self.held_partials -= entry.job.partial
        self._place(worker)

    def give_up(self, worker: Worker, entry: PendingJob, now_s: float) -> None:
        """Take ``entry`` back, though the worker may still be busy with it."""
        worker.overdue[entry.job_id, entry.attempt] = now_s
        if self._reserved is worker:
            self.unreserve()
        self.take_back(worker, entry)

    def forget_overdue(self, worker: Worker, attempts: Iterable[Attempt]) -> None:
        """The worker is not busy with these (any more)."""
        for attempt in attempts:
            worker.overdue.pop(attempt, None)
        self._place(worker)

    def drain(self, worker: Worker) -> None:
        """The worker takes nothing more."""
        worker.draining = True
        if self._reserved is worker:
            self.unreserve()
        self._place(worker)

    def _place(self, worker: Worker) -> None:
        """Give ``worker`` its place in the heap, after whatever changed it."""
        worker.ticket = 0
        if not worker.takes_jobs:
            return
        self._tickets += 1
        worker.ticket = self._tickets
        heapq.heappush(self._heap, (worker.held_audio_ms, worker.ticket, worker))
        if len(self._heap) > 4 * len(self._workers) + STALE_ENTRIES_MAX:
            self._heap = [item for item in self._heap if item[2].ticket == item[1]]
            heapq.heapify(self._heap)

    # ------------------------------------------------------------------------------- what is known

    @property
    def throughput_rtfx(self) -> float:
        """Seconds of audio per second, all that take work together."""
        return sum(worker.throughput.factor for worker in self if not worker.draining)

    @property
    def has_reserved(self) -> bool:
        return self._reserved is not None

    @property
    def heap_length(self) -> int:
        return len(self._heap)

    def validate(self) -> None:
        for worker in self:
            assert worker.free_credits >= 0, "more assigned than credits"
            assert worker.held_audio_ms == sum(e.audio_ms for e in worker.held.values())
            assert not worker.alone or len(worker.held) == 1, "not alone"
            assert worker.reserved == (worker is self._reserved)
            assert worker.takes_jobs == bool(worker.ticket)
            for entry in worker.held.values():
                assert entry.place == "assigned" and entry.worker == worker.identity
        tickets = {ticket for _, ticket, worker in self._heap if worker.ticket == ticket}
        assert tickets == {worker.ticket for worker in self if worker.ticket}
        held = [entry for worker in self for entry in worker.held.values()]
        assert len(held) == len(self._assigned) == self.held
        assert all(self._assigned[entry.job_id] is entry for entry in held)
        assert self.held_audio_ms == sum(worker.held_audio_ms for worker in self)
        assert self.credits == sum(worker.credits for worker in self)
        assert self.held_partials == sum(entry.job.partial for entry in held)
