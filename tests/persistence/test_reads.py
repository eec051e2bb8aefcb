from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from persistence import reads
from persistence.migrate import load_migrations, migrate
from persistence.reads import SessionReader, StoreUnavailable
from persistence.store import write
from tests.persistence import sent
from wire.messages import Failure, Token
from wire.records import RecordBody


@pytest.fixture
async def reader(database: str) -> AsyncIterator[SessionReader]:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
    opened = SessionReader(database)
    await opened.open()
    yield opened
    await opened.close()


def store(database: str, session_id: str, *bodies: RecordBody) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        write(connection, [sent.entry(body, session_id) for body in bodies])


async def test_a_session_without_a_transcript_is_read_from_its_segments(
    database: str, reader: SessionReader
) -> None:
    store(database, "s", sent.started(), sent.segment(0, "one"), sent.finished(text=None))
    session, state = await reader.session("s"), await reader.resume_state("s")
    assert session is not None and state is not None
    assert (session["text"], state["text"]) == ("", None)
    assert session["status"] == state["status"] == "completed"


async def test_a_whole_session(database: str, reader: SessionReader) -> None:
    failure = Failure(code="chunk_failed", message="three times")
    store(
        database,
        "s",
        sent.started(model="digits"),
        sent.chunks(1, 0),
        sent.segment(1, failure=failure),
        sent.segment(0, "one"),
        sent.finished(),
    )
    session = await reader.session("s")
    assert session is not None
    segments, chunks = session.pop("segments"), session.pop("chunks")
    assert session.pop("speakers") == {}
    assert session == {
        "session_id": "s",
        "user_id": "ann",
        "status": "completed",
        "model": "digits",
        "text": "one two",
        "duration": 2.5,
        "chunk_count": 2,
        "segment_count": 2,
        "error": None,
        "created_at": "2026-01-01T12:00:00.000Z",
        "completed_at": "2026-01-01T12:01:00.000Z",
    }
    assert segments == [
        sent.result(tokens=(Token(text="one", start_ms=0, end_ms=400),), text="one"),
        sent.result(seq=1, text=None, error=failure),
    ]
    assert chunks == [
        {
            "chunk_index": index,
            "bytes": 3_200,
            "offset_ms": index * 100,
            "duration_ms": 100,
            "received_at": f"2026-01-01T12:00:00.{index}00Z",
        }
        for index in (0, 1)
    ]


async def test_an_unfinished_session_has_the_counts_of_its_rows(
    database: str, reader: SessionReader
) -> None:
    store(database, "s", sent.chunks(0, 1, 2), sent.segment(0))
    session = await reader.session("s")
    assert session is not None
    assert (session["status"], session["text"], session["completed_at"]) == ("active", "", None)
    assert (session["chunk_count"], session["segment_count"], session["duration"]) == (3, 1, 0.3)


async def test_history_is_limited_newest_first_and_omits_deleted_sessions(
    database: str, reader: SessionReader
) -> None:
    for number in range(5):
        at_ms = sent.NOON_MS + number
        store(database, f"s{number}", sent.started(started_at_ms=at_ms), sent.finished())
    store(database, "s3", sent.deleted())
    total, records = await reader.history(2)
    assert total == 4
    assert [record["session_id"] for record in records] == ["s4", "s2"]
    assert await reader.history(0) == (4, [])


async def test_unknown_and_deleted_sessions_are_none(database: str, reader: SessionReader) -> None:
    store(database, "gone", sent.started(), sent.deleted())
    assert await reader.session("gone") is None
    assert await reader.session("unknown") is None
    assert await reader.session("nul\0") is None
    assert await reader.session("'; DROP TABLE asr_sessions; --") is None
    assert await reader.status("gone") == "deleted"
    assert await reader.status("unknown") is None
    assert await reader.status("nul\0") is None
    assert await reader.ping()


async def test_without_tables_the_store_is_unavailable(database: str) -> None:
    reader = SessionReader(database)
    await reader.open()
    try:
        assert not await reader.ping()
        with pytest.raises(StoreUnavailable):
            await reader.history(1)
    finally:
        await reader.close()


async def test_reads_continue_when_a_newer_release_adds_columns(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection, load_migrations()[:2])
        connection.execute("INSERT INTO asr_sessions (id) VALUES ('s')")
    opened = SessionReader(database)
    await opened.open()
    try:
        # More often than psycopg executes a query before it prepares it.
        for _ in range(4 * reads.CONNECTIONS_MAX):
            assert await opened.resume_state("s") is not None
        with psycopg.connect(database, autocommit=True) as connection:
            migrate(connection)
        store(database, "s", sent.started(model="digits"), sent.segment(0, language="en"))
        state = await opened.resume_state("s")
    finally:
        await opened.close()
    assert state is not None and state["model"] == "digits"
    assert [result.language for result in state["segments"]] == ["en"]


async def test_without_a_server_the_store_is_unavailable_before_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reads, "CONNECT_TIMEOUT_S", 0.2)
    reader = SessionReader("postgresql://nobody@127.0.0.1:1/none")
    await reader.open()
    try:
        assert not await reader.ping()
        with pytest.raises(StoreUnavailable):
            await reader.session("s")
    finally:
        await reader.close()


async def test_reads_recover_from_the_loss_of_all_connections(
    database: str, reader: SessionReader
) -> None:
    store(database, "s", sent.started())
    sessions = await asyncio.gather(*(reader.session("s") for _ in range(8)))
    assert all(session is not None for session in sessions)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert await reader.session("s") is not None


async def test_reads_recover_after_a_database_that_did_not_answer(
    database: str, reader: SessionReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "READ_TIMEOUT_S", 0.2)
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE asr_sessions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            await reader.history(1)
        assert not await reader.ping()
    monkeypatch.setattr(reads, "READ_TIMEOUT_S", 10.0)
    assert await reader.history(1) == (0, [])


async def test_a_cancelled_read_returns_at_once(
    database: str, reader: SessionReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the server does not answer, and so cannot cancel the query."""
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE asr_sessions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.status("s"), 0.05)
        (abandoned,) = reader._reading
        assert not abandoned.done()
        monkeypatch.setattr(reads, "READ_TIMEOUT_S", 0.1)
    assert await reader.status("s") is None
