from __future__ import annotations

from typing import Any

import psycopg

from persistence import segments
from persistence.migrate import load_migrations, migrate
from persistence.store import write
from tests.persistence import sent
from wire.messages import Failure, Result, Segment
from wire.records import segment_copy

FOUND = sent.result(language="en", confidence=0.75, provisional=True, resume_sample=16_000)
FAILED = sent.result(seq=1, text=None, error=Failure(code="deadline", message="late"), tokens=())


def test_columns_are_declared_by_the_message() -> None:
    declared = {"segment_index", *Segment.__struct_fields__} - {"seq"}
    own = {"session_id", "generation", "text", "error_code", "error_message"}
    assert segments.COLUMNS.keys() == declared | own


def test_the_schema_has_the_declared_columns(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        rows = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_name = 'asr_segments' AND column_name <> 'stored_at'"
        )
        assert dict(rows.fetchall()) == segments.COLUMNS


def stored_results(connection: psycopg.Connection[Any]) -> list[Result]:
    ((selected,),) = connection.execute(segments.SELECT, ("s", 10))
    return segments.results_of(selected)


def test_results_are_read_as_they_were_written_in_their_order(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        assert stored_results(connection) == []
        for result in (FAILED, FOUND):
            assert write(connection, [sent.entry(segment_copy(result))]) == []
        assert stored_results(connection) == [FOUND, FAILED]


def test_rows_of_the_schema_before_are_read(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection, load_migrations()[:2])
        connection.execute("INSERT INTO asr_sessions (id) VALUES ('s')")
        connection.execute(
            "INSERT INTO asr_segments (session_id, segment_index, start_ms, end_ms, "
            "last_chunk_index, text, tokens, worker_id, attempt, queue_ms, infer_ms) VALUES "
            """('s', 0, 0, 900, 0, 'text 0', '[{"text": "text", "start_ms": 0, "end_ms": 400}]', """
            "'worker-1', 1, 5, 20)"
        )
        before = stored_results(connection)
        migrate(connection)
        after = stored_results(connection)
    assert before == after == [sent.result()]
