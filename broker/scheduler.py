"""Core: the life of a job: accepted, assigned, lost, returned, answered or expired.

The scheduler knows jobs and workers; ``broker.routing`` knows messages and gateways.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from broker import answers
from broker import limits as limit
from broker.events import Action, Count, Send
from broker.jobs import JobIndex, PendingJob, audio_ms_of
from broker.models import Model, Models
from broker.worker_links import WorkerLinks
from broker.workers import Attempt, Worker
from wire.messages import JOB_DEADLINE_MS_MAX, Failure, Job, Ready, Result, WorkerResult


class Scheduler:
    """Keeps each job in exactly one place: in the queue of its model, or held by one of the model's
    workers. ``answer`` receives the result of each job, once. ``owned`` returns whether the gateway
    of a job has a lease."""

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
        self.models = Models(limits)
        self.links = WorkerLinks(act)
        self._deadlines: list[tuple[float, int, PendingJob]] = []
        self._next_job_id = 1

    # ----------------------------------------------------------------------------- from gateways

    def accept(self, gateway: bytes, job: Job, now_s: float) -> bool:
        """Queue a new job. Returns False if the queue of its model is full."""
        model = self.models.route(job.model)
        if model is None:
            return False
        audio_ms = audio_ms_of(job, streamed=model.workers.stream)
        if not model.queue.admits(audio_ms, len(self.models)):
            return False
        entry = PendingJob(
            job_id=self._next_job_id,
            job=job,
            gateway=gateway,
            audio_ms=audio_ms,
            received_s=now_s,
            deadline_s=now_s + min(job.deadline_ms, JOB_DEADLINE_MS_MAX) / 1000,
            model=model.name,
        )
        self._next_job_id += 1
        self.jobs.add(entry)
        model.queue.push(entry)
        if job.lane == "live" and not job.partial:
            model.arrivals.add(job.session_id, audio_ms, now_s)
        if not job.partial:
            heapq.heappush(self._deadlines, (entry.deadline_s, entry.job_id, entry))
            if len(self._deadlines) > 2 * len(self.jobs) + limit.STALE_HEAP_ENTRIES_MAX:
                self._deadlines = [item for item in self._deadlines if item[2] in self.jobs]
                heapq.heapify(self._deadlines)
        return True

    def drop(self, entry: PendingJob, reason: str) -> None:
        """End ``entry`` without an answer. A worker that holds it cannot be stopped: the worker's
        answer frees the credit."""
        self._end(entry)
        self._act(Count(reason))

    def _end(self, entry: PendingJob) -> None:
        self.jobs.remove(entry)
        if entry.location == "assigned":
            entry.abandoned = True
        elif entry.location != "nowhere":
            self.models[entry.model].queue.remove(entry)

    # ------------------------------------------------------------------------------ from workers

    def register(self, identity: bytes, ready: Ready, now_s: float) -> bool:
        """Register a worker, which must not be registered. Returns False if there are too many
        models."""
        served = self.models.add(identity, ready, now_s)
        if served is None:
            return False
        for entry in self.jobs:
            if identity in entry.lost_by:
                entry.lost_by.remove(identity)
                entry.excused += 1
        if len(list(served.workers.taking)) == 1:
            for model in self.models:
                self._move_unnamed(model)
        return True

    def _move_unnamed(self, model: Model) -> None:
        """Move jobs for any model from this one, which has no workers, to one that has."""
        if len(model.workers) or not len(model.queue):
            return
        for entry in [entry for entry in model.queue if not entry.job.model]:
            to = self.models.route("")
            if to is not None and to is not model:
                model.queue.move(entry, to.queue)
                entry.model = to.name

    def complete(self, worker: Worker, answer: WorkerResult, now_s: float) -> bool:
        """Take a worker's answer. Returns False if the worker does not hold that attempt."""
        entry = worker.held.get(answer.job_id)
        if entry is None or entry.attempt != answer.attempt:
            return False
        pool = self.models.pool(worker)
        jobs = max(1, answer.batch_jobs)
        own = min(jobs, answer.broker_jobs or jobs)
        self.links.answered(answer, now_s)
        pool.complete(worker, entry, now_s, answer.infer_ms * own / jobs, jobs)
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
            self.links.taken_back(entry)
            self.models.pool(worker).take_back(worker, entry)
            self._requeue(entry)

    def lose_in_transit(self, worker: Worker, entry: PendingJob) -> None:
        """Queue a job again whose attempt, or its result, was lost with a connection. The attempt
        does not count against the job. The next one has another number, because the worker may
        have answered this one meanwhile, and answers each number once."""
        self.links.taken_back(entry)
        self.models.pool(worker).take_back(worker, entry)
        entry.excused += 1
        self._attempt_lost(entry)

    def lose(self, worker: Worker, *, is_back: bool = False) -> None:
        """Unregister a worker. The attempts that it held are lost. ``is_back``: it registers again,
        so that none of its jobs has ended it."""
        self.links.lost(worker.identity)
        for entry in self.models.remove(worker):
            if is_back:
                entry.excused += 1
            else:
                entry.lost_by.add(worker.identity)
            self._attempt_lost(entry)
        self._move_unnamed(self.models[worker.served_name])

    def _attempt_lost(self, entry: PendingJob) -> None:
        entry.attempts_lost += 1
        if entry.charged < limit.ATTEMPTS_MAX or entry.abandoned or entry.job.partial:
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
            self.models[entry.model].queue.requeue(entry)

    def _fail(self, entry: PendingJob, failure: Failure, *, attempt: int) -> None:
        self._end(entry)
        self._answer(entry, entry.job.result(error=failure, attempt=attempt))

    # --------------------------------------------------------------------------------- deadlines

    def expire(self, now_s: float) -> None:
        """End attempts, jobs and waiting partials whose time is over."""
        for model in self.models:
            self._expire_attempts(model, now_s)
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, _, entry = heapq.heappop(self._deadlines)
            if entry in self.jobs:
                begun = entry.attempt if entry.location == "assigned" else entry.attempts_lost
                self._fail(entry, answers.DEADLINE, attempt=begun)
        for model in self.models:
            while (partial := model.queue.oldest_partial) is not None:
                if now_s - partial.received_s <= limit.PARTIAL_WAIT_S_MAX:
                    break
                self.drop(partial, "partial_expired")

    def _expire_attempts(self, model: Model, now_s: float) -> None:
        for worker in list(model.workers):
            while (entry := worker.longest_held) is not None:
                expected_s = limit.ATTEMPT_TIMES_EXPECTED * entry.expected_s
                if now_s - entry.assigned_s <= max(self._limits.attempt_deadline_s, expected_s):
                    break
                self.links.taken_back(entry)
                model.workers.give_up(worker, entry, now_s)
                entry.timed_out = True
                self._act(Count("attempt_deadline"))
                self._attempt_lost(entry)

    # ---------------------------------------------------------------------------------- dispatch

    def dispatch(self, now_s: float) -> None:
        """Assign jobs of each model while any wait and one of its workers has a free credit."""
        for model in self.models:
            self._dispatch(model, now_s)

    def _dispatch(self, model: Model, now_s: float) -> None:
        queue, workers = model.queue, model.workers
        if not len(queue):
            workers.unreserve()
            return
        self._dispatch_exclusive(model, now_s)
        while len(queue) and (worker := workers.least_loaded()) is not None:
            entry = model.next_for(worker)
            if entry is None:
                break
            self._assign(model, worker, entry, now_s, exclusive=False)
        while (streamed := model.next_streamed()) is not None:
            self._assign(model, *streamed, now_s, exclusive=False)

    def _dispatch_exclusive(self, model: Model, now_s: float) -> None:
        while model.queue.has_exclusive:
            worker = model.workers.reserve_idle()
            if worker is None:
                return
            self._assign(model, worker, model.queue.pop_exclusive(), now_s, exclusive=True)
        model.workers.unreserve()

    def _assign(
        self, model: Model, worker: Worker, entry: PendingJob, now_s: float, *, exclusive: bool
    ) -> None:
        model.workers.assign(worker, entry, now_s, exclusive=exclusive)
        self.links.assigned(worker.identity, entry, now_s)
        self._act(Send("back", worker.identity, answers.worker_job(entry, self._epoch)))
