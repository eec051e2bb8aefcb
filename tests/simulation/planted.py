"""Bugs planted into the routing core: checkers that don't catch them check nothing.

Each function puts one bug into a fresh broker, by replacing a method of one of its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from broker import answers
from broker.jobs import PendingJob
from broker.queues import FairQueue
from broker.routing import Broker
from broker.workers import Worker
from tests.simulation.broker_host import Plant
from wire import messages as m


def _patch(owner: object, name: str, make: Callable[[Any], Any]) -> None:
    """Replace the method ``name`` by ``make(the method)``."""
    setattr(owner, name, make(getattr(owner, name)))


def no_epoch_check(core: Broker) -> None:
    back: Any = core._back

    def plant(check: Any) -> Any:
        def on_result(identity: bytes, answer: m.WorkerResult, now_s: float) -> None:
            check(identity, replace(answer, broker_epoch=core.epoch), now_s)

        return on_result

    back[m.WorkerResult] = plant(back[m.WorkerResult])


def no_attempt_check(core: Broker) -> None:
    def plant(complete: Any) -> Any:
        def any_attempt(worker: Worker, answer: m.WorkerResult, now_s: float) -> bool:
            entry = worker.held.get(answer.job_id)
            if entry is not None:
                answer = replace(answer, attempt=entry.attempt)
            return bool(complete(worker, answer, now_s))

        return any_attempt

    _patch(core.scheduler, "complete", plant)


def no_worker_check(core: Broker) -> None:
    def plant(complete: Any) -> Any:
        def any_worker(worker: Worker, answer: m.WorkerResult, now_s: float) -> bool:
            for other in core.scheduler.workers:
                if answer.job_id in other.held:
                    worker = other
            return bool(complete(worker, answer, now_s))

        return any_worker

    _patch(core.scheduler, "complete", plant)


def no_dedup(core: Broker) -> None:
    _patch(core.scheduler.jobs, "final", lambda _final: lambda _session_id, _seq: None)


def stranded_jobs(core: Broker) -> None:
    """What a lost worker held is forgotten."""
    _patch(core.scheduler, "lose", lambda _lose: core.scheduler.workers.remove)


def credit_leak(core: Broker) -> None:
    """One answer in three doesn't give its credit back."""
    pool = core.scheduler.workers
    answers = 0

    def plant(complete: Any) -> Any:
        def leaks(worker: Worker, entry: PendingJob, *rest: float) -> None:
            nonlocal answers
            answers += 1
            if answers % 3 == 0 and worker.credits > 0:
                worker.credits -= 1
                pool.credits -= 1
            complete(worker, entry, *rest)

        return leaks

    _patch(pool, "complete", plant)


def partials_pile_up(core: Broker) -> None:
    """Newer partials don't replace those that wait."""

    def plant(partials: Any) -> Any:
        return lambda _session_id: []

    _patch(core.scheduler.jobs, "partials", plant)


def greedy_session(core: Broker) -> None:
    """The session with the longest queue goes first."""

    def pop_of(queue: FairQueue) -> Callable[[], PendingJob | None]:
        def pop() -> PendingJob | None:
            flows = [flow for flow in queue._flows.values() if flow.jobs]
            if not flows:
                return None
            flow = max(flows, key=lambda flow: len(flow.jobs))
            entry = next(iter(flow.jobs.values()))
            queue.remove(entry)
            return entry

        return pop

    queue = core.scheduler.queue._live
    _patch(queue, "pop", lambda _pop: pop_of(queue))


def debts_forgotten(core: Broker) -> None:
    """A session that has nothing waiting starts anew, whatever it has had."""
    queue = core.scheduler.queue._live

    def plant(retire: Any) -> Any:
        def forgets(session_id: str) -> None:
            retire(session_id)
            queue._served.pop(session_id, None)

        return forgets

    _patch(queue, "_retire", plant)


def bulk_starves(core: Broker) -> None:
    queue = core.scheduler.queue

    def pop_lane() -> PendingJob | None:
        return queue._live.pop() or queue._bulk.pop()

    _patch(queue, "_pop_lane", lambda _pop: pop_lane)


def attempts_unbounded(core: Broker) -> None:
    def plant(lost: Any) -> Any:
        def forgets(entry: PendingJob) -> None:
            entry.attempts_lost = min(entry.attempts_lost, 1)
            lost(entry)

        return forgets

    _patch(core.scheduler, "_attempt_lost", plant)


def poison_takes_others_along(core: Broker) -> None:
    """The last attempt is not made alone."""
    queue = core.scheduler.queue

    def plant(_requeue: Any) -> Any:
        def requeue(entry: PendingJob) -> None:
            entry.place = "retry"
            queue._retries[entry.job_id] = entry
            queue._added(entry)

        return requeue

    _patch(queue, "requeue", plant)


def drained_workers_get_jobs(core: Broker) -> None:
    _patch(core.scheduler.workers, "drain", lambda _drain: lambda _worker: None)


def cancelled_jobs_are_answered(core: Broker) -> None:
    """CANCEL forgets only what is queued."""
    front: Any = core._front

    def on_cancel(_identity: bytes, cancel: m.Cancel, _now_s: float) -> None:
        for entry in core.scheduler.jobs.of_session(cancel.session_id):
            if entry.place != "assigned":
                core.scheduler.drop(entry, "cancelled")

    front[m.Cancel] = on_cancel


def first_sender_gets_the_result(core: Broker) -> None:
    _patch(core.scheduler.jobs, "move", lambda _move: lambda _entry, _gateway: None)


def leases_never_end(core: Broker) -> None:
    core._lease_s = 1e9


def overload_in_silence(core: Broker) -> None:
    def plant(accept: Any) -> Any:
        def accepts(gateway: bytes, job: m.Job, now_s: float) -> bool:
            accept(gateway, job, now_s)
            return True

        return accepts

    _patch(core.scheduler, "accept", plant)


def queue_unbounded(core: Broker) -> None:
    _patch(core.scheduler.queue, "admits", lambda _admits: lambda _audio_ms: True)


def credits_ignored(core: Broker) -> None:
    pool = core.scheduler.workers

    def plant(add: Any) -> Any:
        def adds(identity: bytes, ready: m.Ready, now_s: float) -> Worker:
            worker: Worker = add(identity, replace(ready, credits=ready.credits * 50), now_s)
            return worker

        return adds

    _patch(pool, "add", plant)


def hung_workers_get_jobs(core: Broker) -> None:
    """A worker's credit is free as soon as its attempt is given up."""
    pool = core.scheduler.workers

    def give_up(worker: Worker, entry: PendingJob, _now_s: float) -> None:
        pool.take_back(worker, entry)

    _patch(pool, "give_up", lambda _give_up: give_up)


def stalled_for_ever(core: Broker) -> None:
    """A worker that showed progress after an overdue attempt gets nothing all the same."""
    _patch(core.scheduler.workers, "forget_overdue", lambda _forget: lambda _worker, _past: None)


def idle_while_work_waits(core: Broker) -> None:
    """Jobs are assigned only as new ones come."""
    dispatch = core.scheduler.dispatch
    _patch(core.scheduler, "dispatch", lambda _dispatch: lambda _now_s: None)

    def plant(accept: Any) -> Any:
        def accepts(gateway: bytes, job: m.Job, now_s: float) -> bool:
            accepted = accept(gateway, job, now_s)
            dispatch(now_s)
            return bool(accepted)

        return accepts

    _patch(core.scheduler, "accept", plant)


def published_to_nobody(core: Broker) -> None:
    """Answers are published and not delivered."""
    _patch(core, "_is_owned", lambda _is_owned: lambda _entry: False)


def lost_attempts_are_the_last(core: Broker) -> None:
    """What a worker was lost with ends as if its time were over."""
    scheduler = core.scheduler

    def plant(attempt_lost: Any) -> Any:
        def give_up(entry: PendingJob) -> None:
            if entry.abandoned or entry.job.partial:
                attempt_lost(entry)
            else:
                scheduler._fail(entry, answers.DEADLINE, attempt=1)

        return give_up

    _patch(scheduler, "_attempt_lost", plant)


def given_up_attempts_cost_a_credit(core: Broker) -> None:
    """For ever, as long as the worker has more than it needs."""
    pool = core.scheduler.workers

    def plant(give_up: Any) -> Any:
        def takes_one(worker: Worker, entry: PendingJob, now_s: float) -> None:
            if worker.credits > 1 + len(worker.held) + len(worker.overdue):
                worker.credits -= 1
                pool.credits -= 1
            give_up(worker, entry, now_s)

        return takes_one

    _patch(pool, "give_up", plant)


def leases_last_a_second_longer(core: Broker) -> None:
    core._lease_s += 1.0


def foreign_partials(core: Broker) -> None:
    """A partial has the text of another one."""
    back: Any = core._back
    texts: list[str | None] = [None]

    def plant(check: Any) -> Any:
        def on_result(identity: bytes, answer: m.WorkerResult, now_s: float) -> None:
            worker = core.scheduler.workers.get(identity)
            entry = worker.held.get(answer.job_id) if worker is not None else None
            if entry is not None and entry.job.partial and answer.text is not None:
                before, texts[0] = texts[0], answer.text
                answer = replace(answer, text=before or answer.text)
            check(identity, answer, now_s)

        return on_result

    back[m.WorkerResult] = plant(back[m.WorkerResult])


PLANTED: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        no_epoch_check,
        no_attempt_check,
        no_worker_check,
        no_dedup,
        stranded_jobs,
        credit_leak,
        partials_pile_up,
        greedy_session,
        debts_forgotten,
        bulk_starves,
        attempts_unbounded,
        poison_takes_others_along,
        drained_workers_get_jobs,
        cancelled_jobs_are_answered,
        first_sender_gets_the_result,
        leases_never_end,
        overload_in_silence,
        queue_unbounded,
        credits_ignored,
        hung_workers_get_jobs,
        stalled_for_ever,
        idle_while_work_waits,
        published_to_nobody,
        lost_attempts_are_the_last,
        given_up_attempts_cost_a_credit,
        leases_last_a_second_longer,
        foreign_partials,
    )
}
