from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from psycopg.conninfo import make_conninfo

from persistence import chores, store
from persistence.batch_buffer import Batch
from persistence.migrate import load_migrations, migrate
from persistence.writer import Writer, limit_server_side, require_unicode
from tests.persistence import sent
from tools.lab.harness.process import wait_until

ANSWER_S_MAX = 60.0


@pytest.fixture
def writer(database: str) -> Iterator[Writer]:
    opened = Writer(database, write_timeout_s=10.0, lost_after_s=3_600.0, retention_days=0.0)
    yield opened
    opened.stop(ANSWER_S_MAX)


def batch_of(*seqs: int) -> Batch:
    return tuple(sent.entry(sent.segment(seq)) for seq in seqs)


def wait_committed(writer: Writer) -> Batch:
    readable, _, _ = select.select([writer.wake], [], [], ANSWER_S_MAX)
    assert readable
    written = writer.committed()
    assert written is not None
    assert written[1] == []
    return written[0]


def count_segments(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM asr_segments").fetchone()
    assert row is not None
    return int(row[0])


def test_the_writer_writes_one_batch_at_a_time(writer: Writer, database: str) -> None:
    writer.start()
    for batch in (batch_of(0, 1), batch_of(2)):
        assert writer.idle
        writer.submit(batch)
        assert not writer.idle
        assert wait_committed(writer) is batch
    assert count_segments(database) == 3
    assert writer.committed() is None
    assert writer.stop(ANSWER_S_MAX)
    assert not writer.alive


def test_tables_are_created_before_the_first_batch(writer: Writer, database: str) -> None:
    writer.start()
    with psycopg.connect(database, autocommit=True) as connection:
        found = "SELECT to_regclass('asr_segments') IS NOT NULL"
        while connection.execute(found).fetchone() == (False,):
            assert writer.alive


def test_a_newer_schema_delays_batches_and_is_logged_once(
    writer: Writer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE asr_schema_versions (version integer, name text)")
        connection.execute("INSERT INTO asr_schema_versions VALUES (999, 'from the future')")
    tries = threading.Semaphore(0)
    original = Writer._failed

    def counted(self: Writer, error: Exception) -> None:
        original(self, error)
        tries.release()

    monkeypatch.setattr(Writer, "_failed", counted)
    with structlog.testing.capture_logs() as logs:
        writer.start()
        for _ in range(3):
            assert tries.acquire(timeout=ANSWER_S_MAX)
    said = [line for line in logs if line["event"] == "database_unavailable"]
    assert len(said) == 1
    assert "version 999" in said[0]["reason"]


def test_a_database_that_cannot_hold_every_text_is_not_written_to(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        name = f"{connection.info.dbname}_latin"
        connection.execute(
            f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 "
            "LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        try:
            with (
                psycopg.connect(make_conninfo(database, dbname=name)) as latin,
                pytest.raises(psycopg.NotSupportedError, match="ENCODING 'UTF8'"),
            ):
                require_unicode(latin)
        finally:
            connection.execute(f"DROP DATABASE {name}")


def test_texts_are_stored_whatever_encoding_the_environment_names(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    writer = Writer(database, write_timeout_s=10.0, lost_after_s=3_600.0, retention_days=0.0)
    writer.start()
    writer.submit((sent.entry(sent.segment(0, text="七")),))
    wait_committed(writer)
    assert writer.stop(ANSWER_S_MAX)
    with psycopg.connect(database, client_encoding="UTF8") as connection:
        assert connection.execute("SELECT text FROM asr_segments").fetchone() == ("七",)


def test_a_missing_server_does_not_delay_the_end(tmp_path: Path) -> None:
    writer = Writer(
        f"postgresql://postgres@/x?host={tmp_path}",
        write_timeout_s=10.0,
        lost_after_s=3_600.0,
        retention_days=0.0,
    )
    writer.start()
    writer.submit(batch_of(0))
    assert writer.stop(ANSWER_S_MAX)


def test_texts_stored_before_are_indexed_in_the_background(
    writer: Writer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "AGAIN_S", 0.001)
    count = chores.SESSIONS_MAX + 1
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection, load_migrations()[:6])
        connection.execute(
            "INSERT INTO asr_sessions (id, status, text)"
            " SELECT 's' || i, 'completed', 'nine two' FROM generate_series(1, %s) AS i",
            (count,),
        )
        writer.start()
        writer.submit(batch_of(0))
        wait_committed(writer)
        indexed = "SELECT count(*) = %s FROM asr_sessions WHERE terms @@ 'nine'"
        while connection.execute(indexed, (count,)).fetchone() == (False,):
            assert writer.alive


def test_old_sessions_are_deleted_in_the_background(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "AGAIN_S", 0.001)
    count = chores.SESSIONS_MAX + 1
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        connection.execute(
            "INSERT INTO asr_sessions (id, status, created_at)"
            " SELECT 's' || i, 'completed', now() - interval '8 days'"
            " FROM generate_series(1, %s) AS i",
            (count,),
        )
        writer = Writer(database, write_timeout_s=10.0, lost_after_s=3_600.0, retention_days=7)
        writer.start()
        try:
            deleted = "SELECT count(*) = %s FROM asr_sessions WHERE status = 'deleted'"
            while connection.execute(deleted, (count,)).fetchone() == (False,):
                assert writer.alive
        finally:
            writer.stop(ANSWER_S_MAX)


def test_dropped_tables_are_created_again(writer: Writer, database: str) -> None:
    writer.start()
    writer.submit(batch_of(0))
    wait_committed(writer)
    with psycopg.connect(database) as connection:
        connection.execute(
            "DROP TABLE asr_segments, asr_chunks, asr_speakers, asr_speaker_centroids,"
            " asr_sessions, asr_schema_versions"
        )
    writer.submit(batch_of(1))
    wait_committed(writer)
    assert count_segments(database) == 1


def test_an_unexpected_exception_ends_the_thread(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    ended = threading.Event()
    monkeypatch.setattr(store, "write", broken)
    monkeypatch.setattr(threading, "excepthook", lambda _arguments: ended.set())
    writer.start()
    writer.submit(batch_of(0))
    assert ended.wait(ANSWER_S_MAX)
    assert writer.stop(ANSWER_S_MAX)
    assert not writer.alive


def test_the_server_ends_the_transaction_of_an_unreachable_client(database: str) -> None:
    """For the server, such a client is idle in a transaction."""
    with psycopg.connect(database, autocommit=True) as cut_off, psycopg.connect(database) as other:
        limit_server_side(cut_off, 0.2)
        cut_off.execute("CREATE TABLE held ()")
        # In one message: between two, a busy machine could keep this client idle for too long.
        cut_off.execute("BEGIN; LOCK TABLE held")
        other.execute("SET lock_timeout = '20s'")
        other.execute("LOCK TABLE held")
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            cut_off.execute("SELECT")


def limit_role(database: str, *limits: str) -> None:
    """Set limits of the role in this database only."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        role, name = connection.info.user, connection.info.dbname
        for limit in limits:
            connection.execute(f'ALTER ROLE "{role}" IN DATABASE "{name}" SET {limit}'.encode())


def test_limits_of_the_role_end_no_connection_between_batches(
    writer: Writer, database: str
) -> None:
    limit_role(database, "idle_session_timeout = 300")
    with structlog.testing.capture_logs() as logs:
        writer.start()
        for seq in range(2):
            writer.submit(batch_of(seq))
            wait_committed(writer)
            # Longer than the limit: the server shows what it does after it.
            time.sleep(1)
    assert [log["event"] for log in logs] == ["schema_migrated", "database_available"]


def test_a_failed_write_is_logged_with_a_reason_that_quotes_no_row(
    writer: Writer, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
    limit_role(database, "default_transaction_read_only = on")
    with structlog.testing.capture_logs() as logs:
        writer.start()
        writer.submit(batch_of(0))
        wait_until(lambda: len(logs) > 1, "a line", ANSWER_S_MAX)
    limit_role(database, "default_transaction_read_only = off")
    wait_committed(writer)
    said = next(line for line in logs if line["event"] == "database_unavailable")
    # Of the batch, or of a chore before it.
    assert said["reason"].endswith(" in a read-only transaction")
