"""Core: workers of one model: their jobs, credits, leases and throughput, and which is next."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from broker import limits as limit
from broker.jobs import PendingJob
from broker.throughput import Throughput
from wire.messages import Ready, Usage

Attempt = tuple[int, int]
"""Job id and attempt."""
PastAttempts = OrderedDict[Attempt, None]
"""Attempts that a worker no longer holds. A result for one is late or a duplicate."""


class Worker:
    """State of one worker. Others read it; only ``WorkerPool`` changes it."""

    def __init__(self, identity: bytes, ready: Ready, past: PastAttempts, now_s: float) -> None:
        self.identity = identity
        self.worker_id = ready.worker_id
        self.model = ready.model
        self.device = ready.device
        self.served_name = ready.served_name or ready.model
        self.abilities = ready.abilities
        self.credits = min(ready.credits, limit.CREDITS_MAX)
        self.streamed_credits = min(ready.streamed_credits, limit.CREDITS_MAX)
        self.streamed_s = min(ready.streamed_s, limit.COST_S_MAX)
        self.renewed_s = now_s
        """Time of its last message, from which its lease runs."""
        self.held: dict[int, PendingJob] = {}
        self.held_streamed = 0
        """Partial jobs among them that take ``streamed_credits``."""
        self.held_s = 0.0
        """Expected time that it takes for all jobs that it holds."""
        self.overdue: dict[Attempt, float] = {}
        """Attempts taken away at their deadline that the worker may still run, and since when."""
        self.past = past
        self.throughput = Throughput(ready)
        self.measured_s = now_s
        self.draining = False
        self.reserved = False
        """Takes no further jobs until it is idle, for a job that must run exclusively."""
        self.exclusive = False
        """Holds such a job."""
        self.usage: Usage | None = None
        """From its last heartbeat with one."""
        self.protocol_errors = 0
        self.ticket = 0
        """Number of its valid heap entry; 0 if it takes no jobs and has none."""

    @property
    def longest_held(self) -> PendingJob | None:
        return next(iter(self.held.values()), None)

    @property
    def idle(self) -> bool:
        return not self.held and not self.overdue

    @property
    def takes_jobs(self) -> bool:
        """False with an overdue attempt: the worker may hang, and further jobs with it."""
        return not self._barred and len(self.held) - self.held_streamed < self.credits

    @property
    def takes_streamed(self) -> bool:
        return not self._barred and self.held_streamed < self.streamed_credits

    @property
    def _barred(self) -> bool:
        return bool(self.draining or self.reserved or self.exclusive or self.overdue)


class WorkerPool:
    """The registered workers of one model, least loaded first; O(log workers)."""

    def __init__(self) -> None:
        self._workers: dict[bytes, Worker] = {}
        self._unregistered: OrderedDict[bytes, PastAttempts] = OrderedDict()
        self._heap: list[tuple[float, int, Worker]] = []
        self._tickets = 0
        self._reserved: Worker | None = None
        self._utterance_ms = limit.UTTERANCE_MS_INITIAL
        self.held = 0
        """Number of jobs assigned and not answered."""
        self._streams: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        """By session: the segment of its last partial job, and the worker with that state."""
        self.held_streamed = 0
        self.held_audio_ms = 0
        """Without streamed partial jobs."""
        self.held_partials = 0
        self.credits = 0

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def add(self, identity: bytes, ready: Ready, now_s: float) -> Worker:
        assert identity not in self._workers
        past = self._unregistered.pop(identity, PastAttempts())
        worker = self._workers[identity] = Worker(identity, ready, past, now_s)
        self.credits += worker.credits
        self._place(worker)
        return worker

    def remove(self, worker: Worker) -> list[PendingJob]:
        """Unregister a worker. Returns the jobs that it held, oldest first."""
        jobs = list(worker.held.values())
        for entry in jobs:
            self.take_back(worker, entry)
        del self._workers[worker.identity]
        self._unregistered[worker.identity] = worker.past
        if len(self._unregistered) > limit.PAST_WORKERS_MAX:
            self._unregistered.popitem(last=False)
        if self._reserved is worker:
            self._reserved = None
        self.credits -= worker.credits
        worker.ticket = 0
        return jobs

    def grant(self, worker: Worker, credits: int, streamed_credits: int) -> None:
        """Set the credits of the worker. It may hold more jobs than that, assigned before."""
        credits = min(credits, limit.CREDITS_MAX)
        if worker.streamed_credits:
            # Whether partial jobs have credits of their own is settled by its registration.
            worker.streamed_credits = max(1, min(streamed_credits, limit.CREDITS_MAX))
        if credits != worker.credits:
            self.credits += credits - worker.credits
            worker.credits = credits
            self._place(worker)

    def note_usage(self, worker: Worker, usage: Usage) -> None:
        worker.usage = usage

    # ------------------------------------------------------------------------------------- leases

    def renew(self, worker: Worker, now_s: float) -> None:
        """A message has arrived from the worker."""
        worker.renewed_s = now_s

    def expired(self, lease_s: float, now_s: float) -> list[Worker]:
        """Workers whose lease has ended. The caller removes them."""
        return [worker for worker in self if now_s - worker.renewed_s > lease_s]

    def extend(self, pause_s: float, now_s: float) -> None:
        """Extend all leases by the time for which the broker itself was stopped."""
        for worker in self:
            worker.renewed_s = min(now_s, worker.renewed_s + pause_s)

    def add_protocol_error(self, worker: Worker) -> bool:
        """Returns whether the worker has reached the limit and must be quarantined."""
        worker.protocol_errors += 1
        return worker.protocol_errors >= limit.PROTOCOL_ERRORS_MAX

    # ---------------------------------------------------------------------------------- selection

    def least_loaded(self) -> Worker | None:
        """The worker for the next job: the one that takes jobs and is expected to be idle first."""
        while self._heap:
            _, ticket, worker = self._heap[0]
            if worker.ticket == ticket:
                return worker
            heapq.heappop(self._heap)
        return None

    def reserve_idle(self) -> Worker | None:
        """An idle worker for a job that must run exclusively. If there is none, one worker is
        reserved: it takes no further jobs until it is idle. Call again after each change."""
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
    def stream(self) -> bool:
        """Whether all workers have streaming models for partial jobs."""
        return bool(self._workers) and all(worker.streamed_credits for worker in self)

    def for_stream(self, entry: PendingJob) -> Worker | None:
        """The worker for a streamed partial job: the one with the state of its utterance, if it
        takes the job, or any other, which processes the utterance from its beginning."""
        seq, identity = self._streams.get(entry.job.session_id, (-1, b""))
        worker = self._workers.get(identity)
        if worker is not None and seq == entry.job.seq and worker.takes_streamed:
            return worker
        free = [worker for worker in self if worker.takes_streamed]
        return min(free, key=lambda worker: worker.held_s, default=None)

    def takes_partial(self, worker: Worker, entry: PendingJob) -> bool:
        """Whether ``worker``, which takes jobs, may get this partial job beside those it holds."""
        if worker.idle:
            return True
        if worker.streamed_credits and not worker.takes_streamed:
            return False
        held_s = worker.held_s + worker.throughput.work_s(1, entry.audio_ms)
        credits_left = self.held_partials < max(1, self.credits // limit.PARTIAL_CREDITS_SHARE)
        return credits_left and held_s <= limit.PARTIAL_DELAY_S_MAX

    # ------------------------------------------------------------------------------- assignments

    def assign(self, worker: Worker, entry: PendingJob, now_s: float, *, exclusive: bool) -> None:
        streamed = self.is_streamed(worker, entry)
        assert worker.takes_streamed if streamed else worker.takes_jobs
        assert entry.location == "nowhere"
        if not worker.held:
            worker.measured_s = now_s
        entry.location = "assigned"
        entry.assigned_s = now_s
        worker.exclusive = exclusive
        worker.held[entry.job_id] = entry
        entry.work_s = self.work_s(worker, entry)
        worker.held_s += entry.work_s
        entry.expected_s = worker.held_s
        self.held += 1
        self.held_audio_ms += 0 if streamed else entry.audio_ms
        self.held_partials += entry.job.partial
        worker.held_streamed += streamed
        self.held_streamed += streamed
        if streamed:
            self._streams[entry.job.session_id] = entry.job.seq, worker.identity
            self._streams.move_to_end(entry.job.session_id)
            if len(self._streams) > limit.STREAMS_REMEMBERED_MAX:
                self._streams.popitem(last=False)
        self._place(worker)

    def complete(
        self, worker: Worker, entry: PendingJob, now_s: float, infer_ms: float, batch_jobs: int = 1
    ) -> None:
        """Remove ``entry`` from the worker that has answered it. Its batch had ``batch_jobs`` jobs
        of this broker, and they took ``infer_ms``."""
        # A worker that collects a batch holds jobs but is not busy. The half millisecond makes up
        # for rounding: a batch of 0 ms would mean unlimited throughput.
        busy_s = min(now_s - worker.measured_s, (infer_ms + 0.5) / 1000)
        if not self.is_streamed(worker, entry):
            worker.throughput.add(entry.audio_ms, batch_jobs, busy_s)
        if not entry.job.partial:
            self._utterance_ms += limit.UTTERANCE_WEIGHT * (entry.audio_ms - self._utterance_ms)
        worker.measured_s = now_s
        self.take_back(worker, entry)

    def take_back(self, worker: Worker, entry: PendingJob) -> None:
        """Take ``entry`` from the worker. The caller queues it or ends it."""
        entry.location = "nowhere"
        del worker.held[entry.job_id]
        worker.past[entry.job_id, entry.attempt] = None
        if len(worker.past) > limit.PAST_ATTEMPTS_MAX:
            worker.past.popitem(last=False)
        # An idle worker holds exactly nothing, whatever rounding has left.
        worker.held_s = worker.held_s - entry.work_s if worker.held else 0.0
        worker.exclusive = worker.exclusive and bool(worker.held)
        streamed = self.is_streamed(worker, entry)
        worker.held_streamed -= streamed
        self.held_streamed -= streamed
        self.held -= 1
        self.held_audio_ms -= 0 if streamed else entry.audio_ms
        self.held_partials -= entry.job.partial
        self._place(worker)

    @staticmethod
    def is_streamed(worker: Worker, entry: PendingJob) -> bool:
        """Whether the job takes one of the worker's ``streamed_credits``."""
        return entry.job.partial and worker.streamed_credits > 0

    def work_s(self, worker: Worker, entry: PendingJob) -> float:
        """Expected processing time of a job of this worker."""
        if self.is_streamed(worker, entry):
            return worker.streamed_s * worker.throughput.slowness
        return worker.throughput.work_s(1, entry.audio_ms)

    def give_up(self, worker: Worker, entry: PendingJob, now_s: float) -> None:
        """Take back ``entry`` at its deadline, though the worker may still run it."""
        worker.overdue[entry.job_id, entry.attempt] = now_s
        if self._reserved is worker:
            self.unreserve()
        self.take_back(worker, entry)

    def forget_overdue(self, worker: Worker, attempts: Iterable[Attempt]) -> None:
        """The worker does not run these attempts, or no longer."""
        for attempt in attempts:
            worker.overdue.pop(attempt, None)
        self._place(worker)

    def drain(self, worker: Worker) -> None:
        """Assign no further jobs to the worker."""
        worker.draining = True
        if self._reserved is worker:
            self.unreserve()
        self._place(worker)

    def _place(self, worker: Worker) -> None:
        """Move ``worker`` to its place in the heap after a change."""
        worker.ticket = 0
        if not worker.takes_jobs:
            return
        self._tickets += 1
        worker.ticket = self._tickets
        heapq.heappush(self._heap, (worker.held_s, worker.ticket, worker))
        if len(self._heap) > 4 * len(self._workers) + limit.STALE_HEAP_ENTRIES_MAX:
            self._heap = [item for item in self._heap if item[2].ticket == item[1]]
            heapq.heapify(self._heap)

    # -------------------------------------------------------------------------------------- totals

    @property
    def taking(self) -> Iterator[Worker]:
        """Workers that are not draining."""
        return (worker for worker in self if not worker.draining)

    @property
    def throughput_rtfx(self) -> float:
        """Seconds of audio per second of all workers that are not draining, in batches of the best
        size, with utterances as long as those answered recently."""
        return sum(worker.throughput.rtfx(self._utterance_ms) for worker in self.taking)

    @property
    def utterance_s(self) -> float:
        """Time that a worker takes for such an utterance by itself, on average; 0: no workers."""
        each_s = [worker.throughput.alone_s(round(self._utterance_ms)) for worker in self.taking]
        return sum(each_s) / len(each_s) if each_s else 0.0

    def wait_s(self, jobs: int, audio_ms: int) -> float:
        """Time that all workers that are not draining take together for ``jobs``, at least one,
        with ``audio_ms`` in total. There must be such a worker."""
        work_s = [worker.throughput.work_s(jobs, audio_ms) for worker in self.taking]
        return 1 / sum(1 / max(each_s, limit.THROUGHPUT_EXPECTED_S_MIN) for each_s in work_s)
