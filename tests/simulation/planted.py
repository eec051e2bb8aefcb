"""Bugs planted into the real code: a schedule must fail with each of them.

A bug of the broker is a function that changes the core of each broker that starts. The other bugs
are contexts in which a method of the real code is replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from unittest.mock import PropertyMock, patch

from msgspec import structs
from websockets.frames import CloseCode

from asr_worker.batching import BatchLimits
from asr_worker.job_book import JobBook, JobBooks
from broker import answers
from broker.jobs import PendingJob
from broker.limits import Limits
from broker.models import Model
from broker.queues import FairQueue
from broker.routing import Broker
from broker.workers import Worker, WorkerPool
from gateway.brokers.choice import BrokerChoice
from gateway.server import Server
from gateway.session import events as e
from gateway.session.core import TRANSITIONS, Session
from gateway.session.delivery import Delivery
from gateway.session.records import SessionRecords
from gateway.session.resume import resume_point_of
from gateway.session.runner import SessionRunner
from gateway.session.session_jobs import SessionJobs
from gateway.session.states import State
from gateway.session.table import SessionTable
from gateway.session.takeover import Takeover
from gateway.storage.outbox import Outbox
from gateway.storage.spool import Spool
from gateway.web.websocket import WebSocketConnection
from persistence.batch_buffer import Batch, BatchBuffer
from tests.simulation import broker_process
from tests.simulation.options import LOSSES
from tests.simulation.persistence_process import PersistenceProcess
from tests.simulation.schedule import Outcome, Plant, simulate
from tests.simulation.tables import Tables
from wire import messages as m

# -------------------------------------------------------------------------------- the broker


def _patch(owner: object, name: str, make: Callable[[Any], Any]) -> None:
    """Replace the method ``name`` by ``make(the method)``."""
    setattr(owner, name, make(getattr(owner, name)))


def _in_each_model(core: Broker, plant: Callable[[Model], None]) -> None:
    """Plant a bug into each model of the core, once it exists."""

    def plants(opened: Any) -> Any:
        planted: set[Model] = set()

        def opens(name: str) -> Model | None:
            model: Model | None = opened(name)
            if model is not None and model not in planted:
                planted.add(model)
                plant(model)
            return model

        return opens

    _patch(core.scheduler.models, "open", plants)


def _for_good(pool: WorkerPool) -> None:
    """A worker's heartbeats do not set its credits right again."""
    _patch(pool, "grant", lambda _grant: lambda _worker, _credits, _streamed_credits: None)


def no_epoch_check(core: Broker) -> None:
    back: Any = core._received["back"]

    def plant(check: Any) -> Any:
        def on_result(identity: bytes, answer: m.WorkerResult, now_s: float) -> None:
            check(identity, structs.replace(answer, broker_epoch=core.epoch), now_s)

        return on_result

    back[m.WorkerResult] = plant(back[m.WorkerResult])


def no_attempt_check(core: Broker) -> None:
    def plant(complete: Any) -> Any:
        def any_attempt(worker: Worker, answer: m.WorkerResult, now_s: float) -> bool:
            entry = worker.held.get(answer.job_id)
            if entry is not None:
                answer = structs.replace(answer, attempt=entry.attempt)
            return bool(complete(worker, answer, now_s))

        return any_attempt

    _patch(core.scheduler, "complete", plant)


def no_worker_check(core: Broker) -> None:
    def plant(complete: Any) -> Any:
        def any_worker(worker: Worker, answer: m.WorkerResult, now_s: float) -> bool:
            for other in core.scheduler.models.workers:
                if answer.job_id in other.held:
                    worker = other
            return bool(complete(worker, answer, now_s))

        return any_worker

    _patch(core.scheduler, "complete", plant)


def duplicates_accepted(core: Broker) -> None:
    _patch(core.scheduler.jobs, "final", lambda _final: lambda _session_id, _seq: None)


def stranded_jobs(core: Broker) -> None:
    """The jobs of a lost worker are dropped."""
    _patch(core.scheduler, "lose", lambda _lose: core.scheduler.models.remove)


def credit_leak(core: Broker) -> None:
    """One answer in three does not free its credit."""

    def plant(model: Model) -> None:
        pool, complete, answers = model.workers, model.workers.complete, count(1)

        def leaks(worker: Worker, *arguments: Any, **options: Any) -> None:
            if next(answers) % 3 == 0 and worker.credits > 0:
                worker.credits -= 1
                pool.credits -= 1
            complete(worker, *arguments, **options)

        _patch(pool, "complete", lambda _complete: leaks)
        _for_good(pool)

    _in_each_model(core, plant)


def partials_pile_up(core: Broker) -> None:
    """Newer partial jobs do not replace queued ones."""

    def plant(partials: Any) -> Any:
        return lambda _session_id: []

    _patch(core.scheduler.jobs, "partials", plant)


def greedy_session(core: Broker) -> None:
    """The session with the most queued jobs is served first."""

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

    _in_each_model(
        core, lambda model: _patch(model.queue._live, "pop", lambda _: pop_of(model.queue._live))
    )


def start_times_forgotten(core: Broker) -> None:
    """The start time of a session without waiting jobs is forgotten."""

    def plant(model: Model) -> None:
        queue, retire = model.queue._live, model.queue._live._retire

        def forgets(session_id: str) -> None:
            retire(session_id)
            queue._served.pop(session_id, None)

        _patch(queue, "_retire", lambda _retire: forgets)

    _in_each_model(core, plant)


def bulk_starves(core: Broker) -> None:
    def plant(model: Model) -> None:
        _patch(model.queue, "_bulk_is_due", lambda _: lambda: False)

    _in_each_model(core, plant)


def attempts_unbounded(core: Broker) -> None:
    def plant(lost: Any) -> Any:
        def forgets(entry: PendingJob) -> None:
            entry.attempts_lost = min(entry.attempts_lost, 1)
            lost(entry)

        return forgets

    _patch(core.scheduler, "_attempt_lost", plant)


def poison_kills_other_jobs(core: Broker) -> None:
    """The last attempt does not run exclusively."""

    def plant(model: Model) -> None:
        queue = model.queue
        _patch(queue, "requeue", lambda _: lambda entry: queue._add(entry, "retry"))

    _in_each_model(core, plant)


def drained_workers_get_jobs(core: Broker) -> None:
    _in_each_model(
        core, lambda model: _patch(model.workers, "drain", lambda _: lambda _worker: None)
    )


def cancelled_jobs_are_answered(core: Broker) -> None:
    """Cancel drops queued jobs only."""
    front: Any = core._received["front"]

    def on_cancel(_identity: bytes, cancel: m.Cancel, _now_s: float) -> None:
        for entry in core.scheduler.jobs.of_session(cancel.session_id):
            if entry.location != "assigned":
                core.scheduler.drop(entry, "cancelled")

    front[m.Cancel] = on_cancel


def first_sender_gets_the_result(core: Broker) -> None:
    _patch(core.scheduler.jobs, "move", lambda _move: lambda _entry, _gateway: None)


def jobs_are_blamed_for_workers_that_register_again(core: Broker) -> None:
    def plant(lose: Any) -> Any:
        def loses(worker: Worker, *, is_back: bool = False) -> None:
            lose(worker)

        return loses

    _patch(core.scheduler, "lose", plant)


def leases_never_end(core: Broker) -> None:
    core._lease_s = 1e9


def overload_without_answer(core: Broker) -> None:
    def plant(accept: Any) -> Any:
        def accepts(gateway: bytes, job: m.Job, now_s: float) -> bool:
            accept(gateway, job, now_s)
            return True

        return accepts

    _patch(core.scheduler, "accept", plant)


def queue_unbounded(core: Broker) -> None:
    _in_each_model(
        core, lambda model: _patch(model.queue, "admits", lambda _: lambda _audio_ms, _models: True)
    )


def credits_ignored(core: Broker) -> None:
    def plant(add: Any) -> Any:
        def adds(identity: bytes, ready: m.Ready, now_s: float) -> Worker:
            worker: Worker = add(
                identity, structs.replace(ready, credits=ready.credits * 50), now_s
            )
            return worker

        return adds

    _in_each_model(core, lambda model: _patch(model.workers, "add", plant))


def hung_workers_get_jobs(core: Broker) -> None:
    """An attempt past its deadline frees its credit at once."""

    def plant(model: Model) -> None:
        take_back = model.workers.take_back
        _patch(
            model.workers, "give_up", lambda _: lambda worker, entry, _s: take_back(worker, entry)
        )

    _in_each_model(core, plant)


def overdue_attempts_never_forgotten(core: Broker) -> None:
    """A worker gets no more jobs after an overdue attempt, even if it makes progress."""
    _in_each_model(
        core,
        lambda model: _patch(
            model.workers, "forget_overdue", lambda _forget: lambda _worker, _past: None
        ),
    )


def idle_while_work_waits(core: Broker) -> None:
    """Jobs are assigned only when new ones arrive."""
    dispatch = core.scheduler.dispatch
    _patch(core.scheduler, "dispatch", lambda _dispatch: lambda _now_s: None)

    def plant(accept: Any) -> Any:
        def accepts(gateway: bytes, job: m.Job, now_s: float) -> bool:
            accepted = accept(gateway, job, now_s)
            dispatch(now_s)
            return bool(accepted)

        return accepts

    _patch(core.scheduler, "accept", plant)


def answers_not_delivered(core: Broker) -> None:
    """Answers are published and not delivered."""
    _patch(core, "_is_owned", lambda _is_owned: lambda _entry: False)


def lost_attempts_are_the_last(core: Broker) -> None:
    """Jobs of a lost worker end with the error ``deadline``."""
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
    """They cost it for good, while the worker has credits to spare."""

    def plant(model: Model) -> None:
        pool, give_up = model.workers, model.workers.give_up

        def takes_one(worker: Worker, entry: PendingJob, now_s: float) -> None:
            if worker.credits > 1 + len(worker.held) + len(worker.overdue):
                worker.credits -= 1
                pool.credits -= 1
            give_up(worker, entry, now_s)

        _patch(pool, "give_up", lambda _give_up: takes_one)
        _for_good(pool)

    _in_each_model(core, plant)


def streamed_jobs_cost_a_credit(core: Broker) -> None:
    """They cost it for good, while the worker has credits to spare."""

    def plant(model: Model) -> None:
        pool, take_back = model.workers, model.workers.take_back

        def takes_one(worker: Worker, entry: PendingJob) -> None:
            take_back(worker, entry)
            if entry.job.partial and worker.held_streamed + 1 < worker.streamed_credits:
                worker.streamed_credits -= 1

        _patch(pool, "take_back", lambda _take_back: takes_one)
        _for_good(pool)

    _in_each_model(core, plant)


def leases_last_a_second_longer(core: Broker) -> None:
    core._lease_s += 1.0


def jobs_of_other_models(core: Broker) -> None:
    """A job goes to any model, whatever it asks for."""
    _patch(core.scheduler.models, "route", lambda route: lambda _name: route(""))


def jobs_for_any_model_stay(core: Broker) -> None:
    """They wait for the model whose workers were lost."""
    _patch(core.scheduler, "_move_unnamed", lambda _move: lambda _model: None)


def full_for_all_models(core: Broker) -> None:
    """Jobs that wait for one model fill the queues of the others."""

    def plant(model: Model) -> None:
        def admits(audio_ms: int, _models: int) -> bool:
            queues = [each.queue for each in core.scheduler.models]
            limits = model.queue._limits
            waiting_ms = sum(queue.audio_ms for queue in queues)
            return (
                waiting_ms + audio_ms <= limits.queue_audio_ms_max
                and sum(len(queue) for queue in queues) < limits.queue_jobs_max
            )

        _patch(model.queue, "admits", lambda _admits: admits)

    _in_each_model(core, plant)


def foreign_partials(core: Broker) -> None:
    """A partial result has the text of another one."""
    back: Any = core._received["back"]
    texts: list[str | None] = [None]

    def plant(check: Any) -> Any:
        def on_result(identity: bytes, answer: m.WorkerResult, now_s: float) -> None:
            worker = core.scheduler.models.worker(identity)
            entry = worker.held.get(answer.job_id) if worker is not None else None
            if entry is not None and entry.job.partial and answer.text is not None:
                before, texts[0] = texts[0], answer.text
                answer = structs.replace(answer, text=before or answer.text)
            check(identity, answer, now_s)

        return on_result

    back[m.WorkerResult] = plant(back[m.WorkerResult])


# ------------------------------------------------------------------- gateways and persistence

Context = contextlib.AbstractContextManager[object]


def _instead(owner: type, name: str, make: Callable[[Any], Any]) -> Context:
    """Replace the method ``name`` of a class by ``make(the method)``."""
    return patch.object(owner, name, make(getattr(owner, name)))


def _handled_instead(event: type, make: Callable[[Any], Any]) -> Context:
    """Replace the handler of ``event`` in each state by ``make(the handler)``."""
    rows = {key: row for key, row in TRANSITIONS.items() if key[1] is event}
    changed = {key: (state, make(handler)) for key, (state, handler) in rows.items()}
    return patch.dict(TRANSITIONS, changed)


def records_not_kept_until_stored() -> Context:
    return patch.object(Outbox, "put_record", lambda _outbox, _record, _now_s, **_how: None)


def results_not_kept_until_stored() -> Context:
    return patch.object(Outbox, "due", lambda _outbox, _now_s: [])


def resume_acknowledges_one_chunk_too_many() -> Context:
    def make(attach: Any) -> Any:
        def on_attached(session: Session, event: e.Attached, now_s: float) -> list[e.Action]:
            first, *rest = attach(session, event, now_s)
            assert isinstance(first, e.Resumed)
            return [structs.replace(first, next_chunk_index=first.next_chunk_index + 1), *rest]

        return on_attached

    return _handled_instead(e.Attached, make)


def missed_results_not_sent() -> Context:
    return patch.object(Delivery, "missed", lambda _delivery: [])


def results_sent_again_after_resume() -> Context:
    def attach(delivery: Delivery, _next_segment_index: int | None) -> int:
        delivery.connected = True
        delivery._sent_from = 0
        return 0

    return patch.object(Delivery, "attach", attach)


def result_delivered_twice() -> Context:
    def make(segment: Any) -> Any:
        return lambda delivery, result: segment(delivery, result) * 2

    return _instead(Delivery, "_send_segment", make)


def final_before_the_last_segment() -> Context:
    return patch.object(SessionJobs, "all_delivered", PropertyMock(return_value=True))


def results_sent_out_of_order() -> Context:
    """A result is sent even if earlier segments have none."""

    def pop(jobs: SessionJobs) -> Iterable[Any]:
        while any(pending.result is not None for pending in jobs._pending):
            found = next(p for p in jobs._pending if p.result is not None)
            jobs._pending.remove(found)
            jobs._first_seq += 1
            assert found.result is not None
            yield found.result

    return patch.object(SessionJobs, "pop_deliverable", pop)


def stored_always_reported() -> Context:
    return patch.object(SessionRecords, "complete", PropertyMock(return_value=True))


def epoch_change_ignored() -> Context:
    return patch.object(Server, "_on_jobs_lost", lambda _server, _session_ids: None)


def jobs_never_sent_again() -> Context:
    return patch.object(SessionJobs, "due", lambda _jobs, _now_s: ([], []))


def contested_results_accepted() -> Context:
    return patch.object(SessionJobs, "is_contested", lambda _jobs, _seq: False)


def provisional_rows_stay() -> Context:
    def cut_or_not(stored: dict[str, Any], generation: int) -> Any:
        rows = [structs.replace(row, provisional=False) for row in stored["segments"]]
        return resume_point_of({**stored, "segments": rows}, generation)

    return patch("gateway.session.resume.resume_point_of", cut_or_not)


def claim_of_the_same_generation() -> Context:
    """The takeover ignores the generation of the session."""

    def make(claim: Any) -> Any:
        async def same(takeover: Any, session_id: str, generation: int, shown: str) -> None:
            await claim(takeover, session_id, max(1, generation - 1), shown)

        return same

    return _instead(Takeover, "_claim", make)


def older_generations_are_written() -> Context:
    def make(write: Any) -> Any:
        def newest(tables: Tables, entries: Any, now_s: float) -> Any:
            newer = [structs.replace(entry, key=_newer(tables, entry)) for entry in entries]
            return write(tables, newer, now_s)

        return newest

    return _instead(Tables, "write", make)


def _newer(tables: Tables, entry: Any) -> Any:
    row = tables.sessions.get(entry.session_id)
    generation = max(entry.generation, row.generation if row else 0)
    return structs.replace(entry.key, generation=generation)


def superseded_sessions_stay() -> Context:
    return patch.object(SessionTable, "supersede", lambda _table, _id, _generation: False)


def acknowledged_before_commit() -> Context:
    def make(write: Any) -> Any:
        def early(host: PersistenceProcess, batch: Batch) -> None:
            for place, stored in BatchBuffer(host._limits, "").committed(batch):
                host._say(place, stored)
            write(host, batch)

        return early

    return _instead(PersistenceProcess, "write", make)


def spool_not_replayed() -> Context:
    return patch.object(Spool, "take", lambda _spool: [])


def nothing_spooled() -> Context:
    return patch.object(Spool, "write", lambda _spool, _records: 0)


def old_connection_stays_open() -> Context:
    def attach(runner: SessionRunner, connection: Any, next_segment_index: int | None) -> None:
        runner._connection = connection
        runner.handle(e.Attached(next_segment_index=next_segment_index))

    take = SessionRunner.take

    async def take_of_any(runner: SessionRunner, _connection: Any, event: Any, _at_s: Any) -> None:
        assert runner._connection is not None
        await take(runner, runner._connection, event)

    return patch.multiple(SessionRunner, attach=attach, take=take_of_any)


def abandoned_sessions_never_end() -> Context:
    return patch.object(Session, "_give_up_if_due", lambda _session, _now_s: [])


def committed_entries_stay_known() -> Context:
    """Persistence treats committed entries as pending."""

    def make(committed: Any) -> Any:
        def keeps(buffer: BatchBuffer, batch: Batch, superseded: Any) -> Any:
            stored = committed(buffer, batch, superseded)
            buffer._known |= {(entry.gateway_id, entry.key) for entry in batch}
            return stored

        return keeps

    return _instead(BatchBuffer, "committed", make)


def end_without_its_segments_is_complete() -> Context:
    return patch.object(Tables, "_has_all_segments", lambda _tables, _session_id: True)


def partials_of_others_are_sent() -> Context:
    def make(tell: Any) -> Any:
        def lies(delivery: Delivery, answer: e.Answer) -> Any:
            if isinstance(answer, e.PartialText):
                answer = structs.replace(answer, text="of another session")
            return tell(delivery, answer)

        return lies

    return _instead(Delivery, "send", make)


def abandoned_sessions_drop_unanswered_segments() -> Context:
    def make(finish: Any) -> Any:
        def ends(session: Session, event: e.Event, now_s: float) -> Any:
            if session.early_end != "abandoned":
                return finish(session, event, now_s)
            session._jobs._pending.clear()
            session._jobs.unanswered_audio_ms = 0
            return session.handle(e.AllDelivered(), now_s)

        return ends

    return _handled_instead(e.Abandoned, make)


def a_failure_fails_the_next_segment() -> Context:
    def make(take_result: Any) -> Any:
        def fails_two(session: Session, result: m.Result, now_s: float) -> list[e.Action]:
            actions: list[e.Action] = take_result(session, result, now_s)
            failed = result.error is not None and result.error.code == "chunk_failed"
            later = [p.job for p in session._jobs._pending if p.result is None]
            if actions and failed and later and later[0].seq > result.seq:
                job = later[0]
                follows = structs.replace(
                    result, seq=job.seq, start_ms=job.start_ms, end_ms=job.end_ms
                )
                actions += take_result(session, follows, now_s)
            return actions

        return fails_two

    return _handled_instead(m.Result, make)


def sigterm_drops_running_sessions() -> Context:
    def interrupt(runner: SessionRunner) -> None:
        if runner._connection is not None:
            runner._connection.close(CloseCode.SERVICE_RESTART, "service restart")
        runner._release()

    return patch.object(SessionRunner, "interrupt", interrupt)


def sigterm_drops_finished_sessions() -> Context:
    row = State.FINISHING, Session._nothing
    return patch.dict(TRANSITIONS, {(State.FINISHING, e.Interrupted): row})


def connections_end_with_an_error() -> Context:
    """Asyncio reports it when it deletes the task."""

    def make(run: Any) -> Any:
        async def fails(connection: WebSocketConnection) -> None:
            await run(connection)
            raise RuntimeError("a bug")

        return fails

    return _instead(WebSocketConnection, "run", make)


def records_keep_to_their_broker() -> Context:
    """Although it may not reach persistence."""

    def make(brokers_for: Any) -> Any:
        def of_session(choice: BrokerChoice, message: Any, now_s: float, *, again: bool) -> Any:
            return brokers_for(choice, message, now_s)

        return of_session

    return _instead(BrokerChoice, "brokers_for", make)


def sessions_of_lost_brokers_stay() -> Context:
    return patch.object(BrokerChoice, "moves", lambda _choice, _now_s: [])


def results_go_to_the_first_broker() -> Context:
    return patch.object(JobBooks, "place_of", lambda books, _result: next(iter(books.by_place)))


def records_wait_for_their_backoff() -> Context:
    return patch.object(Outbox, "resend_all", lambda _outbox, _now_s: None)


def credits_are_used_once_only() -> Context:
    """A worker does not expect that a broker uses them before its ``Ready`` and after."""

    def make(init: Any) -> Any:
        def keeps_fewer(book: JobBook, worker: m.Ready, limits: BatchLimits) -> None:
            init(book, worker, limits)
            book._held_max -= book._ready.credits + book._ready.streamed_credits

        return keeps_fewer

    return _instead(JobBook, "__init__", make)


BROKER_BUGS: tuple[Callable[[Broker], None], ...] = (
    no_epoch_check,
    no_attempt_check,
    no_worker_check,
    duplicates_accepted,
    stranded_jobs,
    credit_leak,
    partials_pile_up,
    greedy_session,
    start_times_forgotten,
    bulk_starves,
    attempts_unbounded,
    poison_kills_other_jobs,
    drained_workers_get_jobs,
    cancelled_jobs_are_answered,
    first_sender_gets_the_result,
    leases_never_end,
    overload_without_answer,
    queue_unbounded,
    credits_ignored,
    hung_workers_get_jobs,
    overdue_attempts_never_forgotten,
    idle_while_work_waits,
    answers_not_delivered,
    lost_attempts_are_the_last,
    given_up_attempts_cost_a_credit,
    streamed_jobs_cost_a_credit,
    leases_last_a_second_longer,
    foreign_partials,
    jobs_of_other_models,
    full_for_all_models,
    jobs_for_any_model_stay,
    jobs_are_blamed_for_workers_that_register_again,
)
SESSION_BUGS: tuple[Plant, ...] = (
    connections_end_with_an_error,
    records_not_kept_until_stored,
    results_not_kept_until_stored,
    resume_acknowledges_one_chunk_too_many,
    missed_results_not_sent,
    results_sent_again_after_resume,
    result_delivered_twice,
    final_before_the_last_segment,
    results_sent_out_of_order,
    stored_always_reported,
    epoch_change_ignored,
    jobs_never_sent_again,
    contested_results_accepted,
    provisional_rows_stay,
    claim_of_the_same_generation,
    older_generations_are_written,
    superseded_sessions_stay,
    acknowledged_before_commit,
    spool_not_replayed,
    nothing_spooled,
    old_connection_stays_open,
    abandoned_sessions_never_end,
    committed_entries_stay_known,
    end_without_its_segments_is_complete,
    partials_of_others_are_sent,
    abandoned_sessions_drop_unanswered_segments,
    a_failure_fails_the_next_segment,
    sigterm_drops_running_sessions,
    sigterm_drops_finished_sessions,
    records_keep_to_their_broker,
    sessions_of_lost_brokers_stay,
    results_go_to_the_first_broker,
    records_wait_for_their_backoff,
)
WORKER_BUGS: tuple[Plant, ...] = (credits_are_used_once_only,)
RARE: dict[str, dict[str, float]] = {
    "end_without_its_segments_is_complete": {
        "gateway_kills": 0.4,
        "loss": 0.15,
        "client_drops": 0.5,
    },
    "jobs_are_blamed_for_workers_that_register_again": {
        "workers": 4,
        "fault_s": 12.0,
        "partitions": 1.5,
        "broker_stops": 0.0,
        "broker_restarts": 0.0,
        "worker_lies": 0.0,
    },
    "no_epoch_check": {"partitions": 0.1, "broker_restarts": 4.0, "fault_s": 8.0},
    "credits_are_used_once_only": {
        "long_stops": 1,
        "broker_stops": 0.5,
        "batch_jobs_max": 1,
        "fault_s": 8.0,
    },
    "records_wait_for_their_backoff": {
        "persistence_restarts": 0.6,
        "commit_s_max": 0.01,
        "batch_rows_max": 50,
        "pending_rows_max": 1_000,
        **dict.fromkeys(LOSSES, 0.0),
    },
    "records_keep_to_their_broker": {"brokers": 2, "isolations": 1.0},
    "results_go_to_the_first_broker": {"brokers": 2},
    "sessions_of_lost_brokers_stay": {"brokers": 2, "broker_ends": 1.0},
    "nothing_spooled": {"gateway_drains": 0.5, "database_outages": 0.4},
    "sigterm_drops_finished_sessions": {
        "gateway_drains": 0.5,
        "client_leaves": 0.3,
        "worker_stops": 0.4,
    },
    "superseded_sessions_stay": {"gateway_cuts": 0.3, "client_drops": 1.0},
}


@dataclass(frozen=True, slots=True)
class Planted:
    plant: Plant
    real_gateways: bool
    """Whether schedules with real gateways must find the bug, or those without."""
    faults: dict[str, float] = field(default_factory=dict)
    """Rates of faults for a bug that shows in one of hundreds of seeds otherwise."""

    def simulate(self, seed: int, *, echo: bool = False) -> Outcome:
        """A schedule with the bug. Raises ScheduleError when it is caught."""
        return simulate(
            seed,
            self.plant,
            real_gateways=self.real_gateways,
            faults=self.faults,
            echo=echo,
        )


def _in_each_broker(bug: Callable[[Broker], None]) -> Plant:
    @contextlib.contextmanager
    def plant() -> Iterator[None]:
        real = broker_process.new_core

        def new_core(epoch: str, limits: Limits) -> Broker:
            core = real(epoch, limits)
            bug(core)
            return core

        with patch.object(broker_process, "new_core", new_core):
            yield

    return plant


PLANTED: dict[str, Planted] = {
    **{
        bug.__name__: Planted(_in_each_broker(bug), False, RARE.get(bug.__name__, {}))
        for bug in BROKER_BUGS
    },
    **{bug.__name__: Planted(bug, False, RARE[bug.__name__]) for bug in WORKER_BUGS},
    **{bug.__name__: Planted(bug, True, RARE.get(bug.__name__, {})) for bug in SESSION_BUGS},
}
