"""Data on disk and in PostgreSQL from release 809374a, before fields could be added, is read.

``tests/releases`` holds it: a spool file with a record of each kind, written by that release's
``Spool``, and its rows as JSON, written by its ``store.write`` and read with ``json_agg``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psycopg

from gateway.session.resume import resume_point_of
from gateway.storage.spool import Spool
from gateway.web.schemas import segment_answer
from persistence.batch_buffer import Entry
from persistence.migrate import load_migrations, migrate
from persistence.reads import SessionReader
from persistence.store import write
from tests.persistence import sent
from wire.messages import Failure, Record, Token
from wire.records import (
    DEFAULT_TENANT,
    RecordBody,
    SegmentCopy,
    SessionDeleted,
    SessionFinished,
    SessionResumed,
    parse_body,
)

RELEASES = Path(__file__).parent.parent / "releases"
SCHEMA_VERSION = 2
"""Of that release."""
TOKENS = (Token(text="一", start_ms=10, end_ms=200),)
FAILURE = Failure(code="chunk_failed", message="three times")
FIRST = SegmentCopy(
    seq=0,
    start_ms=0,
    end_ms=900,
    last_chunk_index=3,
    segment_text="one 一",
    failure=None,
    tokens=TOKENS,
    worker_id="worker-1",
    attempt=1,
    queue_ms=5,
    infer_ms=20,
    resume_chunk_index=2,
    resume_sample=14_400,
)
SECOND = SegmentCopy(
    seq=1,
    start_ms=1_000,
    end_ms=1_900,
    last_chunk_index=5,
    segment_text="",
    failure=FAILURE,
    tokens=(),
    worker_id="",
    attempt=3,
    queue_ms=7,
    infer_ms=0,
    provisional=True,
    resume_chunk_index=4,
    resume_sample=30_400,
)
BODIES: list[RecordBody] = [
    sent.started(),
    sent.chunks(0, 1),
    FIRST,
    SECOND,
    SessionFinished(
        status="abandoned",
        text="one 一",
        duration_ms=2_000,
        chunk_count=2,
        segment_count=2,
        completed_at_ms=sent.NOON_MS + 60_000,
        failure=FAILURE,
        started=sent.started(),
    ),
    SessionResumed(gateway_id="gateway-2", resume_token_hash="hash"),
    SessionDeleted(requested_at_ms=sent.NOON_MS),
]


def entry(record: Record) -> Entry:
    return Entry(
        gateway_id="gateway-1",
        key=record.key,
        body=parse_body(record.body),
        byte_count=100,
        received_s=0.0,
    )


def test_a_spool_file_is_taken_and_stored(tmp_path: Path, database: str) -> None:
    shutil.copy(RELEASES / "809374a.spool", tmp_path)
    spool = Spool(tmp_path, "gateway-1")
    records = spool.take()
    assert [record.record_seq for record in records] == list(range(len(BODIES)))
    assert [parse_body(record.body) for record in records] == BODIES
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        assert write(connection, [entry(record) for record in records[:-1]]) == []
        found = connection.execute("SELECT text FROM asr_segments ORDER BY segment_index")
        assert found.fetchall() == [("one 一",), (None,)]
    spool.confirm([record.key for record in records])
    assert list(tmp_path.iterdir()) == []


async def test_rows_are_shown_and_sessions_resumed(database: str) -> None:
    rows = json.loads((RELEASES / "809374a.json").read_text(encoding="utf-8"))
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection, load_migrations()[:SCHEMA_VERSION])
        for table in ("asr_sessions", "asr_segments", "asr_chunks"):
            connection.execute(
                f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, %s)",
                (json.dumps(rows[table]),),
            )
        migrate(connection)
    reader = SessionReader(database)
    await reader.open()
    try:
        shown, state = (
            await reader.session("s", DEFAULT_TENANT, chunks=True),
            await reader.resume_state("s", DEFAULT_TENANT),
        )
        done = await reader.resume_state("done", DEFAULT_TENANT)
    finally:
        await reader.close()
    assert shown is not None and state is not None and done is not None
    first, second = map(segment_answer, shown["segments"])
    assert (first["text"], first["language"], first["confidence"]) == ("one 一", "", None)
    assert second["error"] == {"code": FAILURE.code, "message": FAILURE.message}
    assert len(shown["chunks"]) == 2
    point = resume_point_of(state, 2)
    assert [result.text for result in point.results] == ["one 一"]
    assert (point.next_chunk_index, point.first_sample) == (2, 14_400)
    assert point.results[0].tokens == TOKENS
    final = resume_point_of(done, 0).final
    assert final is not None and final.text == "eins"
