"""Bugs planted into gateways, persistence and their tables, each caught by ``sessions``.

Each is a context in which a method of the real code is another one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from unittest.mock import PropertyMock, patch

from msgspec import structs

from gateway.server import Server
from gateway.session import events as e
from gateway.session.core import TRANSITIONS, Session
from gateway.session.delivery import Delivery
from gateway.session.records import SessionRecords
from gateway.session.resume import resume_point_of
from gateway.session.runner import CLOSE_RESTART, SessionRunner
from gateway.session.segments import Segments
from gateway.session.states import State
from gateway.session.table import SessionTable
from gateway.session.takeover import Takeover
from gateway.storage.outbox import Outbox
from gateway.storage.spool import Spool
from persistence.batch_buffer import Batch, BatchBuffer
from tests.simulation.persistence_process import PersistenceProcess
from tests.simulation.sessions import SessionPlant
from tests.simulation.tables import Tables

Context = contextlib.AbstractContextManager[object]


def _instead(owner: type, name: str, make: Callable[[Any], Any]) -> Context:
    """``make`` gets the real method."""
    return patch.object(owner, name, make(getattr(owner, name)))


def _handled_instead(event: type, make: Callable[[Any], Any]) -> Context:
    """``make`` gets the real handler of ``event`` in each state."""
    rows = {key: row for key, row in TRANSITIONS.items() if key[1] is event}
    changed = {key: (state, make(handler)) for key, (state, handler) in rows.items()}
    return patch.dict(TRANSITIONS, changed)


def record_forgotten_before_it_is_stored() -> Context:
    return patch.object(Outbox, "put_record", lambda _outbox, _record, _now_s: None)


def results_not_kept_until_stored() -> Context:
    return patch.object(Outbox, "due", lambda _outbox, _now_s: [])


def resume_acknowledges_one_chunk_too_many() -> Context:
    def make(attach: Any) -> Any:
        def on_attached(session: Session, event: e.Attached, now_s: float) -> list[e.Action]:
            first, *rest = attach(session, event, now_s)
            assert isinstance(first, e.Resumed)
            return [replace(first, next_chunk_index=first.next_chunk_index + 1), *rest]

        return on_attached

    return _handled_instead(e.Attached, make)


def missed_texts_not_told() -> Context:
    return patch.object(Delivery, "missed", lambda _delivery: [])


def texts_told_again_after_resume() -> Context:
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
    return patch.object(Segments, "all_delivered", PropertyMock(return_value=True))


def results_told_as_they_come() -> Context:
    """Whatever is there, the earlier ones or not."""

    def pop(segments: Segments) -> Iterable[Any]:
        while any(pending.result is not None for pending in segments._pending):
            found = next(p for p in segments._pending if p.result is not None)
            segments._pending.remove(found)
            segments._first_seq += 1
            assert found.result is not None
            yield found.result

    return patch.object(Segments, "pop_deliverable", pop)


def stored_always_said() -> Context:
    return patch.object(SessionRecords, "complete", PropertyMock(return_value=True))


def epoch_change_ignored() -> Context:
    return patch.object(Server, "_on_broker_restart", lambda _server: None)


def jobs_never_sent_again() -> Context:
    return patch.object(Segments, "due", lambda _segments, _now_s: ([], []))


def contested_results_believed() -> Context:
    return patch.object(Segments, "is_contested", lambda _segments, _seq: False)


def provisional_rows_go_on() -> Context:
    def cut_or_not(stored: dict[str, Any], generation: int) -> Any:
        rows = [structs.replace(row, provisional=False) for row in stored["segments"]]
        return resume_point_of({**stored, "segments": rows}, generation)

    return patch("gateway.session.resume.resume_point_of", cut_or_not)


def claim_of_the_same_generation() -> Context:
    """The takeover ignores what generation the session is of."""

    def make(claim: Any) -> Any:
        async def same(takeover: Any, session_id: str, generation: int, shown: str) -> None:
            await claim(takeover, session_id, max(1, generation - 1), shown)

        return same

    return _instead(Takeover, "_claim", make)


def older_generations_are_written() -> Context:
    def make(write: Any) -> Any:
        def newest(tables: Tables, entries: Any, now_s: float) -> Any:
            newer = [replace(entry, key=_newer(tables, entry)) for entry in entries]
            return write(tables, newer, now_s)

        return newest

    return _instead(Tables, "write", make)


def _newer(tables: Tables, entry: Any) -> Any:
    row = tables.sessions.get(entry.session_id)
    generation = max(entry.generation, row.generation if row else 0)
    return structs.replace(entry.key, generation=generation)


def superseded_sessions_go_on() -> Context:
    return patch.object(SessionTable, "supersede", lambda _table, _id, _generation: False)


def acknowledged_before_commit() -> Context:
    def make(write: Any) -> Any:
        def early(host: PersistenceProcess, batch: Batch) -> None:
            for stored in BatchBuffer(host._limits).committed(batch):
                host._say(stored)
            write(host, batch)

        return early

    return _instead(PersistenceProcess, "write", make)


def spool_not_replayed() -> Context:
    return patch.object(Spool, "take", lambda _spool: [])


def nothing_spooled() -> Context:
    return patch.object(Spool, "write", lambda _spool, _records: 0)


def old_connection_goes_on() -> Context:
    def attach(host: SessionRunner, connection: Any, next_segment_index: int | None) -> None:
        host._connection = connection
        host.handle(e.Attached(next_segment_index=next_segment_index))

    take = SessionRunner.take

    async def take_of_any(host: SessionRunner, _connection: Any, event: Any, _at_s: Any) -> None:
        assert host._connection is not None
        await take(host, host._connection, event)

    return patch.multiple(SessionRunner, attach=attach, take=take_of_any)


def abandoned_sessions_wait_for_ever() -> Context:
    return patch.object(Session, "_give_up_if_due", lambda _session, _now_s: [])


def known_entries_never_forgotten() -> Context:
    """Persistence takes what it has committed for what is still to be written."""

    def make(committed: Any) -> Any:
        def keeps(buffer: BatchBuffer, batch: Batch, superseded: Any) -> Any:
            stored = committed(buffer, batch, superseded)
            buffer._known |= {(entry.gateway_id, entry.key) for entry in batch.entries}
            return stored

        return keeps

    return _instead(BatchBuffer, "committed", make)


def end_without_its_segments_is_complete() -> Context:
    return patch.object(Tables, "_has_all_segments", lambda _tables, _session_id: True)


def partials_of_others_are_told() -> Context:
    def make(tell: Any) -> Any:
        def lies(delivery: Delivery, answer: e.Answer) -> Any:
            if isinstance(answer, e.PartialText):
                answer = structs.replace(answer, text="of another session")
            return tell(delivery, answer)

        return lies

    return _instead(Delivery, "send", make)


def abandoned_sessions_end_with_what_was_told() -> Context:
    def make(finish: Any) -> Any:
        def ends(session: Session, event: e.Event, now_s: float) -> Any:
            if session.early_end != "abandoned":
                return finish(session, event, now_s)
            session._segments._pending.clear()
            session._segments._unanswered_audio_ms = 0
            return session.handle(e.AllDelivered(), now_s)

        return ends

    return _handled_instead(e.Abandoned, make)


def a_failure_takes_the_next_segment_along() -> Context:
    def make(take_result: Any) -> Any:
        def fails_two(session: Session, event: e.ResultArrived, now_s: float) -> list[e.Action]:
            actions: list[e.Action] = take_result(session, event, now_s)
            result = event.result
            failed = result.error is not None and result.error.code == "chunk_failed"
            later = [p.job for p in session._segments._pending if p.result is None]
            if actions and failed and later and later[0].seq > result.seq:
                job = later[0]
                follows = structs.replace(
                    result, seq=job.seq, start_ms=job.start_ms, end_ms=job.end_ms
                )
                actions += take_result(session, e.ResultArrived(result=follows), now_s)
            return actions

        return fails_two

    return _handled_instead(e.ResultArrived, make)


def sigterm_forgets_what_runs() -> Context:
    def interrupt(host: SessionRunner) -> None:
        if host._connection is not None:
            host._connection.close(CLOSE_RESTART, "service restart")
        host._end()

    return patch.object(SessionRunner, "interrupt", interrupt)


def sigterm_forgets_who_has_finished() -> Context:
    row = State.FINISHING, Session._nothing
    return patch.dict(TRANSITIONS, {(State.FINISHING, e.Interrupted): row})


SESSION_PLANTS: dict[str, SessionPlant] = {
    plant.__name__: plant
    for plant in (
        record_forgotten_before_it_is_stored,
        results_not_kept_until_stored,
        resume_acknowledges_one_chunk_too_many,
        missed_texts_not_told,
        texts_told_again_after_resume,
        result_delivered_twice,
        final_before_the_last_segment,
        results_told_as_they_come,
        stored_always_said,
        epoch_change_ignored,
        jobs_never_sent_again,
        contested_results_believed,
        provisional_rows_go_on,
        claim_of_the_same_generation,
        older_generations_are_written,
        superseded_sessions_go_on,
        acknowledged_before_commit,
        spool_not_replayed,
        nothing_spooled,
        old_connection_goes_on,
        abandoned_sessions_wait_for_ever,
        known_entries_never_forgotten,
        end_without_its_segments_is_complete,
        partials_of_others_are_told,
        abandoned_sessions_end_with_what_was_told,
        a_failure_takes_the_next_segment_along,
        sigterm_forgets_what_runs,
        sigterm_forgets_who_has_finished,
    )
}
