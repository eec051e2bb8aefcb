"""Invariants of the routing core between events, and the size of its bookkeeping.

They look at all jobs and workers, so the core does not check them itself.
"""

from __future__ import annotations

import math

from broker import limits as limit
from broker.jobs import JobIndex
from broker.models import Model, Models
from broker.queues import LATER, FairQueue, JobQueue
from broker.routing import Broker
from broker.scheduler import Scheduler
from broker.workers import WorkerPool


def check_broker(broker: Broker) -> None:
    assert not broker._actions
    check_scheduler(broker.scheduler)
    workers = broker.scheduler.models.workers
    assert not any(broker._unregistered.is_quarantined(worker.identity) for worker in workers)
    assert len(broker.gateways) <= limit.GATEWAYS_MAX
    assert broker.scheduler.models.worker_count <= limit.WORKERS_MAX


def check_scheduler(scheduler: Scheduler) -> None:
    """Each job is in one place."""
    check_index(scheduler.jobs)
    check_models(scheduler.models)
    queued = {entry.job_id for model in scheduler.models for entry in model.queue}
    workers = scheduler.models.workers
    held = {entry.job_id: entry for worker in workers for entry in worker.held.values()}
    assert not queued & held.keys(), "both queued and assigned"
    waited_for = queued | {job_id for job_id, entry in held.items() if not entry.abandoned}
    assert waited_for == {entry.job_id for entry in scheduler.jobs}, "a job is in no place"
    timed = {job_id for _, job_id, _ in scheduler._deadlines}
    assert all(entry.job_id in timed for entry in scheduler.jobs if not entry.job.partial)
    assert all(entry.charged < limit.ATTEMPTS_MAX for entry in scheduler.jobs)
    for model in scheduler.models:
        can_assign = model.workers.least_loaded() is not None
        reserved = model.workers._reserved is not None
        waits = model.queue.finals or (model.queue.has_exclusive and not reserved)
        assert not (can_assign and waits), "a worker and a job wait for each other"
    if any(model.takes_jobs for model in scheduler.models):
        stuck = [
            e for m in scheduler.models if not len(m.workers) for e in m.queue if not e.job.model
        ]
        assert not stuck, "a job for any model and a worker wait for each other"


def check_models(models: Models) -> None:
    assert len(models) <= limit.MODELS_MAX
    for name, model in models._models.items():
        assert model.name == name
        check_model(model)
    found = {worker.identity: worker for model in models for worker in model.workers}
    assert found == models._workers


def check_model(model: Model) -> None:
    """All its jobs and workers are its own."""
    check_queue(model.queue)
    check_pool(model.workers)
    held = [entry for worker in model.workers for entry in worker.held.values()]
    for entry in (*model.queue, *held):
        assert entry.model == model.name and entry.job.model in ("", model.name)
    assert all(worker.served_name == model.name for worker in model.workers)


def check_queue(queue: JobQueue) -> None:
    """All counts and locations agree."""
    check_fair_queue(queue._live)
    check_fair_queue(queue._bulk)
    entries = list(queue)
    assert len(entries) == len(queue) == len({entry.job_id for entry in entries})
    assert queue.audio_ms == sum(entry.audio_ms for entry in entries)
    urgent = [entry.audio_ms for entry in entries if entry.location not in LATER]
    assert (queue.urgent_jobs, queue.urgent_audio_ms) == (len(urgent), sum(urgent))
    for location, lane in queue._lanes.items():
        assert all(entry.location == location for entry in lane)
    for location, fifo in queue._fifos.items():
        assert all(entry.location == location for entry in fifo.values())


def check_fair_queue(queue: FairQueue) -> None:
    """All counts agree."""
    assert len(queue) == sum(len(flow.jobs) for flow in queue._flows.values())
    waiting = [flow for _, _, flow in queue._heap if flow.jobs]
    assert len(waiting) == len(queue._flows) == len({id(flow) for flow in waiting})
    assert all(flow.jobs for flow in queue._flows.values())
    assert len(queue._served) <= len(queue._served_heap) <= limit.SERVED_FLOWS_MAX
    assert queue._flows or not heap_length(queue)


def check_index(index: JobIndex) -> None:
    """The indexes agree."""
    by_session = [
        (entry.job_id, entry)
        for jobs_of in (index._finals, index._partials)
        for jobs in jobs_of.values()
        for entry in jobs.values()
    ]
    by_gateway = [pair for jobs in index._by_gateway.values() for pair in jobs.items()]
    assert all([*index._finals.values(), *index._partials.values(), *index._by_gateway.values()])
    assert len(by_session) == len(by_gateway) == len(index)
    assert dict(by_session) == dict(by_gateway) == index._jobs
    assert all(
        entry.job_id in index._by_gateway[entry.gateway] and not entry.abandoned for entry in index
    )


def check_pool(pool: WorkerPool) -> None:
    """All counts agree."""
    for worker in pool:
        held_s = sum(entry.work_s for entry in worker.held.values())
        assert math.isclose(worker.held_s, held_s, rel_tol=1e-6, abs_tol=1e-6)
        streamed = [e for e in worker.held.values() if pool.is_streamed(worker, e)]
        assert worker.held_streamed == len(streamed)
        assert not worker.exclusive or len(worker.held) == 1, "not exclusive"
        assert worker.reserved == (worker is pool._reserved)
        assert worker.takes_jobs == bool(worker.ticket)
        for entry in worker.held.values():
            assert entry.location == "assigned"
    tickets = {ticket for _, ticket, worker in pool._heap if worker.ticket == ticket}
    assert tickets == {worker.ticket for worker in pool if worker.ticket}
    held = [entry for worker in pool for entry in worker.held.values()]
    assert len(held) == pool.held
    assert pool.held_streamed == sum(worker.held_streamed for worker in pool)
    waited_for = [
        entry.audio_ms
        for worker in pool
        for entry in worker.held.values()
        if not pool.is_streamed(worker, entry)
    ]
    assert pool.held_audio_ms == sum(waited_for)
    assert pool.credits == sum(worker.credits for worker in pool)
    assert pool.held_partials == sum(entry.job.partial for entry in held)
    assert len(pool._streams) <= limit.STREAMS_REMEMBERED_MAX


def heap_length(queue: FairQueue) -> int:
    return len(queue._heap) + len(queue._served_heap)


def bookkeeping_length(scheduler: Scheduler) -> int:
    """Heap entries, stale ones included: bounded by the number of jobs and workers."""
    return len(scheduler._deadlines) + sum(
        heap_length(model.queue._live) + heap_length(model.queue._bulk) + len(model.workers._heap)
        for model in scheduler.models
    )
