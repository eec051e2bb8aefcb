"""The life of a job: accepted, assigned, lost, returned, answered or expired.

The scheduler knows jobs and workers; ``broker.routing`` knows messages and gateways.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from broker import answers
from broker import limits as limit
from broker.events import Action, Count, SendBack
from broker.jobs import JobIndex, PendingJob, audio_ms_of
from broker.queues import JobQueue
from broker.workers import Attempt, Worker, WorkerPool
from wire.messages import JOB_DEADLINE_MS_MAX, Failure, Job, Result, WorkerResult


class Scheduler:
    """Keeps each job in exactly one place: in ``queue``, or held by one of ``workers``.

    ``act`` receives actions. ``answer`` receives the result of each job, once. ``owned`` returns
    whether the gateway of a job has a lease.
    """

    def __init__(
        self,
        epoch: str,
        limits: limit.Limits,
        *,
        act: Callable[[Action], None],
        answer: Callable[[PendingJob, Result], None],
        owned: Callable[[PendingJob], bool],
    ) -> None:
        self._epoch = epoch
        self._limits = limits
        self._act = act
        self._answer = answer
        self._owned = owned
        self.jobs = JobIndex()
        self.queue = JobQueue(limits)
        self.workers = WorkerPool()
        self._deadlines: list[tuple[float, int, PendingJob]] = []
        self._next_job_id = 1

    # ----------------------------------------------------------------------------- from gateways

    def accept(self, gateway: bytes, job: Job, now_s: float) -> bool:
        """Queue a new job. Returns False, with nothing changed, if the queue is full."""
        audio_ms = audio_ms_of(job)
        if not self.queue.admits(audio_ms):
            return False
        entry = PendingJob(
            job_id=self._next_job_id,
            job=job,
            gateway=gateway,
            audio_ms=audio_ms,
            received_s=now_s,
            deadline_s=now_s + min(job.deadline_ms, JOB_DEADLINE_MS_MAX) / 1000,
        )
        self._next_job_id += 1
        self.jobs.add(entry)
        self.queue.push(entry)
        if not job.partial:
            heapq.heappush(self._deadlines, (entry.deadline_s, entry.job_id, entry))
            if len(self._deadlines) > 2 * len(self.jobs) + limit.STALE_HEAP_ENTRIES_MAX:
                self._deadlines = [item for item in self._deadlines if item[2] in self.jobs]
                heapq.heapify(self._deadlines)
        return True

    def drop(self, entry: PendingJob, reason: str) -> None:
        """End ``entry`` without an answer, because its result is no longer needed. A worker that
        holds it cannot be stopped; the worker's answer frees the credit."""
        self._end(entry)
        self._act(Count(reason))

    def _end(self, entry: PendingJob) -> None:
        self.jobs.remove(entry)
        if entry.place == "assigned":
            entry.abandoned = True
        elif entry.place != "nowhere":
            self.queue.remove(entry)

    # ------------------------------------------------------------------------------ from workers

    def complete(self, worker: Worker, answer: WorkerResult, now_s: float) -> bool:
        """Take a worker's answer. Returns False if the worker does not hold that attempt."""
        entry = worker.held.get(answer.job_id)
        if entry is None or entry.attempt != answer.attempt:
            return False
        self.workers.complete(worker, entry, now_s, answer.infer_ms)
        if entry.abandoned:
            self._act(Count("abandoned_result"))
            return True
        self._end(entry)
        self._answer(entry, answers.result_of(entry, answer, worker.worker_id))
        return True

    def take_returned(self, worker: Worker, attempts: Iterable[Attempt]) -> None:
        """Queue attempts again that the worker has not begun. They do not count."""
        for job_id, attempt in attempts:
            entry = worker.held.get(job_id)
            if entry is None or entry.attempt != attempt:
                self._act(Count("stale_return"))
                continue
            self.workers.take_back(worker, entry)
            self._requeue(entry)

    def lose(self, worker: Worker) -> None:
        """Unregister a worker. The attempts that it held are lost."""
        for entry in self.workers.remove(worker):
            self._attempt_lost(entry)

    def _attempt_lost(self, entry: PendingJob) -> None:
        entry.attempts_lost += 1
        if entry.attempts_lost < limit.ATTEMPTS_MAX or entry.abandoned or entry.job.partial:
            self._requeue(entry)
        else:
            self._fail(entry, answers.CHUNK_FAILED, attempt=entry.attempts_lost)

    def _requeue(self, entry: PendingJob) -> None:
        if entry.abandoned:
            self._act(Count("abandoned_lost"))
        elif entry.job.partial:
            self.drop(entry, "partial_lost")
        elif not self._owned(entry):
            self.drop(entry, "gateway_lost")
        else:
            self.queue.requeue(entry)

    def _fail(self, entry: PendingJob, failure: Failure, *, attempt: int) -> None:
        self._end(entry)
        self._answer(entry, entry.job.result(error=failure, attempt=attempt))

    # --------------------------------------------------------------------------------- deadlines

    def expire(self, now_s: float) -> None:
        """End attempts, jobs and waiting partials whose time is over."""
        self._expire_attempts(now_s)
        self._expire_jobs(now_s)
        while (partial := self.queue.oldest_partial) is not None:
            if now_s - partial.received_s <= limit.PARTIAL_WAIT_S_MAX:
                break
            self.drop(partial, "partial_expired")

    def _expire_attempts(self, now_s: float) -> None:
        while (entry := self.workers.longest_held) is not None:
            if now_s - entry.assigned_s <= self._limits.attempt_deadline_s:
                break
            worker = self.workers.get(entry.worker)
            assert worker is not None
            self.workers.give_up(worker, entry, now_s)
            entry.timed_out = True
            self._act(Count("attempt_deadline"))
            self._attempt_lost(entry)

    def _expire_jobs(self, now_s: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, _, entry = heapq.heappop(self._deadlines)
            if entry in self.jobs:
                begun = entry.attempt if entry.place == "assigned" else entry.attempts_lost
                self._fail(entry, answers.DEADLINE, attempt=begun)

    # ---------------------------------------------------------------------------------- dispatch

    def dispatch(self, now_s: float) -> None:
        """Assign jobs while any wait and a worker has a free credit."""
        if not len(self.queue):
            self.workers.unreserve()
            return
        self._dispatch_exclusive(now_s)
        while len(self.queue) and (worker := self.workers.least_loaded()) is not None:
            entry = self.queue.pop(partials=self.workers.takes_partials)
            if entry is None:
                return
            self._assign(worker, entry, now_s, exclusive=False)

    def _dispatch_exclusive(self, now_s: float) -> None:
        while self.queue.has_exclusive:
            worker = self.workers.reserve_idle()
            if worker is None:
                return
            self._assign(worker, self.queue.pop_exclusive(), now_s, exclusive=True)
        self.workers.unreserve()

    def _assign(self, worker: Worker, entry: PendingJob, now_s: float, *, exclusive: bool) -> None:
        self.workers.assign(worker, entry, now_s, exclusive=exclusive)
        self._act(SendBack(worker.identity, answers.worker_job(entry, self._epoch)))

    @property
    def bookkeeping_length(self) -> int:
        """Heap entries, stale ones included: bounded by the number of jobs and workers."""
        return len(self._deadlines) + self.queue.bookkeeping_length + self.workers.heap_length

    def validate(self) -> None:
        """Assert that each job is in one place. For tests."""
        self.jobs.validate()
        self.queue.validate()
        self.workers.validate()
        queued = {entry.job_id for entry in self.queue}
        held = {entry.job_id: entry for worker in self.workers for entry in worker.held.values()}
        assert not queued & held.keys(), "both queued and assigned"
        waited_for = queued | {job_id for job_id, entry in held.items() if not entry.abandoned}
        assert waited_for == {entry.job_id for entry in self.jobs}, "a job is in no place"
        timed = {job_id for _, job_id, _ in self._deadlines}
        assert all(entry.job_id in timed for entry in self.jobs if not entry.job.partial)
        assert all(entry.attempts_lost < limit.ATTEMPTS_MAX for entry in self.jobs)
        can_assign = self.workers.least_loaded() is not None
        waits = self.queue.finals or (self.queue.has_exclusive and not self.workers.has_reserved)
        assert not (can_assign and waits), "a worker and a job wait for each other"
