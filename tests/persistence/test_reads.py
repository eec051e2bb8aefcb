from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import structlog

from persistence import reads
from persistence.history import Cursor, HistoryQuery
from persistence.migrate import load_migrations, migrate
from persistence.reads import SessionReader, StoreUnavailable
from persistence.store import write
from tests.persistence import sent
from wire.messages import Failure, Token
from wire.records import DEFAULT_TENANT, RecordBody


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may keep the server still for longer than a read may take."""
    monkeypatch.setattr(reads, "CONNECT_TIMEOUT_S", 30.0)
    monkeypatch.setattr(reads, "READ_TIMEOUT_S", 30.0)


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
    session, state = (
        await reader.session("s", DEFAULT_TENANT),
        await reader.resume_state("s", DEFAULT_TENANT),
    )
    assert session is not None and state is not None
    assert (session["text"], state["text"]) == ("", None)
    assert session["status"] == state["status"] == "completed"


async def test_the_owner_is_read_without_the_segments(database: str, reader: SessionReader) -> None:
    store(database, "s", sent.started(), sent.segment(0, "one"))
    owner = await reader.owner_state("s", DEFAULT_TENANT)
    state = await reader.resume_state("s", DEFAULT_TENANT)
    assert owner is not None and state is not None and len(state["segments"]) == 1
    assert owner == {
        name: value
        for name, value in state.items()
        if name not in ("segments", "speakers", "centroids")
    }
    for session_id, tenant in (("s", "acme"), ("unknown", DEFAULT_TENANT), ("\0", DEFAULT_TENANT)):
        assert await reader.owner_state(session_id, tenant) is None


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
    session = await reader.session("s", DEFAULT_TENANT, chunks=True)
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
    store(database, "s", sent.started(), sent.chunks(0, 1, 2), sent.segment(0))
    session = await reader.session("s", DEFAULT_TENANT)
    assert session is not None
    assert (session["status"], session["text"], session["completed_at"]) == ("active", "", None)
    assert (session["chunk_count"], session["segment_count"], session["duration"]) == (3, 1, 0.3)


async def history(reader: SessionReader, **asked: Any) -> list[str]:
    """The ids on one page."""
    page = await reader.history(HistoryQuery(tenant=DEFAULT_TENANT, **asked))
    return [record["session_id"] for record in page.records]


def store_many(database: str, count: int) -> None:
    """Sessions s0, s1 … each a second after the one before."""
    for number in range(count):
        at_ms = sent.NOON_MS + 1_000 * number
        store(database, f"s{number}", sent.started(started_at_ms=at_ms), sent.finished())


async def test_history_is_limited_newest_first_and_omits_deleted_sessions(
    database: str, reader: SessionReader
) -> None:
    store_many(database, 5)
    store(database, "s3", sent.deleted())
    page = await reader.history(HistoryQuery(tenant=DEFAULT_TENANT, limit=2))
    assert page.total == 4
    assert [record["session_id"] for record in page.records] == ["s4", "s2"]
    assert page.records[0]["preview"] == page.records[0]["text"] == "one two"
    assert await history(reader, limit=2, offset=3) == ["s0"]


async def test_pages_are_complete_and_have_nothing_twice_while_sessions_are_stored(
    database: str, reader: SessionReader
) -> None:
    for number in range(7):  # All at the same time: then the id decides.
        store(database, f"s{number}", sent.started(), sent.finished())
    seen: list[str] = []
    cursor = None
    while True:
        page = await reader.history(HistoryQuery(tenant=DEFAULT_TENANT, limit=2, cursor=cursor))
        seen += [record["session_id"] for record in page.records]
        at_ms = sent.NOON_MS + len(seen)
        store(database, f"new{len(seen)}", sent.started(started_at_ms=at_ms), sent.finished())
        if page.next_cursor is None:
            break
        cursor = Cursor.decode(page.next_cursor)
    assert seen == [f"s{number}" for number in range(7)]


async def test_history_by_time_user_status_and_model(database: str, reader: SessionReader) -> None:
    store_many(database, 4)
    at_ms = sent.NOON_MS + 9_000
    bob = sent.started(started_at_ms=at_ms, user_id="bob", model="digits")
    store(database, "bob", bob, sent.finished(status="abandoned"))
    noon = datetime.fromtimestamp(sent.NOON_MS / 1_000, UTC)
    since, until = noon + timedelta(seconds=1), noon + timedelta(seconds=3)
    assert await history(reader, since=since, until=until) == ["s2", "s1"]
    assert await history(reader, user_id="bob") == ["bob"]
    assert await history(reader, user_id="") == []
    assert await history(reader, statuses=("abandoned", "failed")) == ["bob"]
    assert await history(reader, model="digits") == ["bob"]
    assert await history(reader, model="digits", user_id="ann") == []


async def test_search_finds_words_anywhere_in_a_session(
    database: str, reader: SessionReader
) -> None:
    text = "hello " * 100 + "今天天气很好"
    store(database, "a", sent.started(), sent.finished(text=text))
    store(database, "b", sent.started(), sent.finished(text="hello world"))
    store(database, "running", sent.started(), sent.segment(0, "hello"))
    assert await history(reader, words="Hello") == ["a", "b"]
    assert await history(reader, words="hello 天气") == ["a"]
    assert await history(reader, words="nobody") == []
    page = await reader.history(HistoryQuery(tenant=DEFAULT_TENANT, words="天气"))
    assert page.total == 1
    preview = page.records[0]["preview"]
    assert preview.startswith("…") and preview.endswith("今天天气很好")


async def test_whole_texts_are_read_only_if_asked_for_and_within_a_limit(
    database: str, reader: SessionReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persistence.history.TEXT_BYTES_MAX", 500)
    for number in range(4):
        store(database, f"s{number}", sent.started(), sent.finished(text="x" * 300))
    page = await reader.history(HistoryQuery(tenant=DEFAULT_TENANT, texts=True))
    assert [record["session_id"] for record in page.records] == ["s0", "s1"]
    assert page.records[0]["text"] == "x" * 300
    assert page.records[0]["preview"] == "x" * 200 + "…"
    assert page.next_cursor is not None
    rest = HistoryQuery(tenant=DEFAULT_TENANT, texts=True, cursor=Cursor.decode(page.next_cursor))
    assert [each["session_id"] for each in (await reader.history(rest)).records] == ["s2", "s3"]


async def test_a_running_session_shows_its_first_segments(
    database: str, reader: SessionReader
) -> None:
    store(database, "s", sent.started(), sent.segment(1, "two"), sent.segment(0, "one"))
    (record,) = (await reader.history(HistoryQuery(tenant=DEFAULT_TENANT))).records
    assert (record["status"], record["preview"]) == ("active", "one two")


async def test_unknown_and_deleted_sessions_are_none(database: str, reader: SessionReader) -> None:
    store(database, "gone", sent.started(), sent.deleted())
    assert await reader.session("gone", DEFAULT_TENANT) is None
    assert await reader.session("unknown", DEFAULT_TENANT) is None
    assert await reader.session("nul\0", DEFAULT_TENANT) is None
    assert await reader.session("'; DROP TABLE asr_sessions; --", DEFAULT_TENANT) is None
    assert await reader.status("gone", DEFAULT_TENANT) is None and await reader.exists("gone")
    assert await reader.status("unknown", DEFAULT_TENANT) is None
    assert await reader.status("nul\0", DEFAULT_TENANT) is None
    assert await reader.ping()


async def test_without_tables_the_store_is_unavailable(database: str) -> None:
    reader = SessionReader(database)
    await reader.open()
    try:
        assert not await reader.ping()
        with pytest.raises(StoreUnavailable):
            await reader.history(HistoryQuery(tenant=DEFAULT_TENANT))
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
            assert await opened.resume_state("s", DEFAULT_TENANT) is not None
        with psycopg.connect(database, autocommit=True) as connection:
            migrate(connection)
        store(database, "s", sent.started(model="digits"), sent.segment(0, language="en"))
        state = await opened.resume_state("s", DEFAULT_TENANT)
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
            await reader.session("s", DEFAULT_TENANT)
    finally:
        await reader.close()


async def test_reads_recover_from_the_loss_of_all_connections(
    database: str, reader: SessionReader
) -> None:
    store(database, "s", sent.started())
    sessions = await asyncio.gather(*(reader.session("s", DEFAULT_TENANT) for _ in range(8)))
    assert all(session is not None for session in sessions)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert await reader.session("s", DEFAULT_TENANT) is not None


async def test_reads_recover_after_a_database_that_did_not_answer(
    database: str, reader: SessionReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "READ_TIMEOUT_S", 0.2)
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE asr_sessions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            await reader.history(HistoryQuery(tenant=DEFAULT_TENANT))
        assert not await reader.ping()
    monkeypatch.setattr(reads, "READ_TIMEOUT_S", 30.0)
    assert await history(reader) == []


async def test_a_cancelled_read_returns_at_once(database: str, reader: SessionReader) -> None:
    """Even if the server does not answer, and so cannot cancel the query."""
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE asr_sessions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.status("s", DEFAULT_TENANT), 0.05)
        (abandoned,) = reader._reading
        assert not abandoned.done()
    assert await reader.status("s", DEFAULT_TENANT) is None


async def test_each_read_finds_the_sessions_of_its_tenant_only(
    database: str, reader: SessionReader
) -> None:
    for tenant in ("acme", DEFAULT_TENANT):
        store(database, f"of {tenant}", sent.started(tenant=tenant), sent.finished(text="nine"))
    session_id = "of acme"
    assert await reader.session(session_id, "acme") is not None
    assert await reader.status(session_id, "acme") == "completed"
    assert await reader.resume_state(session_id, "acme") is not None
    assert await reader.owner_state(session_id, "acme") is not None
    for stranger in (DEFAULT_TENANT, "acm", "acme ", "", "%"):
        assert await reader.session(session_id, stranger) is None
        assert await reader.status(session_id, stranger) is None
        assert await reader.resume_state(session_id, stranger) is None
    assert await reader.exists(session_id) and not await reader.exists("unknown")
    for words in ("", "nine"):
        page = await reader.history(HistoryQuery(tenant="acme", words=words))
        assert (page.total, [row["session_id"] for row in page.records]) == (1, [session_id])
    assert await history(reader) == ["of default"]


async def test_a_session_belongs_to_nobody_before_its_start_is_stored(
    database: str, reader: SessionReader
) -> None:
    store(database, "s", sent.segment(0, "secret"))
    assert await history(reader) == []
    assert await reader.session("s", DEFAULT_TENANT) is None
    store(database, "s", sent.started(tenant="acme"))
    assert await history(reader) == []
    assert await reader.session("s", "acme") is not None


async def test_sessions_are_read_before_persistence_knows_tenants(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection, load_migrations()[:7])
        connection.execute("INSERT INTO asr_sessions (id, started) VALUES ('s', true)")
    opened = SessionReader(database)
    await opened.open()
    try:
        assert await history(opened) == ["s"]
        assert await opened.session("s", DEFAULT_TENANT) is not None
        assert await opened.session("s", "acme") is None
        with psycopg.connect(database, autocommit=True) as connection:
            migrate(connection)
        assert await history(opened) == ["s"]
        assert await opened.session("s", "acme") is None
    finally:
        await opened.close()


async def test_an_unavailable_database_is_logged_with_the_reason_although_nobody_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reads, "FIRST_PING_S", 0.01)
    monkeypatch.setattr(reads, "CONNECT_TIMEOUT_S", 0.5)
    wrong = SessionReader("postgresql://asr:s3cret@/asr?host=/nowhere")
    with structlog.testing.capture_logs() as logs:
        await wrong.open()
        while not logs:
            await asyncio.sleep(0.01)
        await wrong.close()
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("store_unavailable", "warning")
    assert "/nowhere" in line["reason"] and "s3cret" not in str(line)


async def test_no_read_outlives_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "CONNECT_TIMEOUT_S", 60.0)
    monkeypatch.setattr(reads, "CLOSE_TIMEOUT_S", 0.1)
    before = asyncio.all_tasks()
    wrong = SessionReader("postgresql:///asr?host=/nowhere")
    await wrong.open()
    ping = asyncio.create_task(wrong.ping())
    await asyncio.sleep(0)
    await wrong.close()
    assert await ping is False
    assert asyncio.all_tasks() == before
