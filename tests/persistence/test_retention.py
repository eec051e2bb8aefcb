"""Sessions of a certain age are deleted as a request would, and no other ones."""

from __future__ import annotations

import psycopg
import pytest

from persistence import retention
from persistence.migrate import migrate
from persistence.retention import delete_old
from persistence.store import write
from tests.persistence import sent

DAYS = 30.0


def remaining(connection: psycopg.Connection[tuple[str, ...]]) -> list[str]:
    found = "SELECT id FROM asr_sessions WHERE status <> 'deleted' ORDER BY id"
    return [row[0] for row in connection.execute(found)]


def make_older(connection: psycopg.Connection[tuple[str, ...]], session_id: str) -> None:
    older = "UPDATE asr_sessions SET created_at = now() - interval '31 days' WHERE id = %s"
    connection.execute(older, (session_id,))


def test_old_sessions_that_have_ended_are_deleted_with_all_their_rows(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        for session_id in ("old", "running", "new"):
            write(connection, [sent.entry(sent.started(), session_id)])
            write(connection, [sent.entry(sent.segment(0), session_id, kind="result")])
        for session_id in ("old", "new"):
            write(connection, [sent.entry(sent.finished(), session_id)])
        connection.execute("UPDATE asr_sessions SET created_at = now()")
        for session_id in ("old", "running"):
            make_older(connection, session_id)
        assert delete_old(connection, DAYS) == 1
        assert delete_old(connection, DAYS) == 0
        assert remaining(connection) == ["new", "running"]
        rows = connection.execute("SELECT session_id FROM asr_segments ORDER BY 1").fetchall()
        assert rows == [("new",), ("running",)]
        # A late result does not restore it.
        write(connection, [sent.entry(sent.segment(1), "old", kind="result")])
        kept = "SELECT text, user_id, tenant FROM asr_sessions WHERE id = 'old'"
        assert connection.execute(kept).fetchone() == (None, "", "")


def test_a_transaction_has_a_limit_and_at_least_one_session(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_MAX", 10)
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        connection.execute(
            "INSERT INTO asr_sessions (id, status, chunk_count, created_at)"
            " SELECT 's' || i, 'completed', 6, now() - interval '31 days'"
            " FROM generate_series(1, 4) AS i"
        )
        assert [delete_old(connection, DAYS) for _ in range(5)] == [1, 1, 1, 1, 0]
        connection.execute(
            "INSERT INTO asr_sessions (id, status, created_at)"
            " SELECT 't' || i, 'failed', now() - interval '31 days'"
            " FROM generate_series(1, %s) AS i",
            (retention.SESSIONS_MAX + 1,),
        )
        assert [delete_old(connection, DAYS) for _ in range(2)] == [retention.SESSIONS_MAX, 1]
