"""Periodic work: lost sessions, texts that are not indexed, old sessions."""

from __future__ import annotations

from typing import Any, cast

import psycopg
import pytest

from persistence import chores
from persistence.chores import delete_old, index_texts, mark_lost
from persistence.migrate import load_migrations, migrate
from persistence.store import write
from tests.persistence import sent

HOUR_S = 3_600.0
DAYS = 30.0


def test_work_is_logged_when_a_turn_finds_no_more_than_it_can_do() -> None:
    found = iter([chores.SESSIONS_MAX, 3, 0])
    counted: list[float] = []
    logged: list[tuple[str, int]] = []

    def log(event: str, *, sessions: int) -> None:
        logged.append((event, sessions))

    chore = chores.Chore(lambda _connection: next(found), counted.append, log, "sessions_lost")
    connection = cast(psycopg.Connection[Any], None)
    chore.turn(connection)
    assert not logged
    chore.turn(connection)
    chore.turn(connection)
    assert counted == [chores.SESSIONS_MAX, 3, 0]
    assert logged == [("sessions_lost", chores.SESSIONS_MAX + 3)]


def test_only_sessions_without_recent_rows_are_marked_lost(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        for session_id in ("silent", "speaking", "over", "resumed"):
            write(connection, [sent.entry(sent.started(), session_id)])
        write(connection, [sent.entry(sent.segment(0), "speaking", kind="result")])
        write(connection, [sent.entry(sent.finished(), "over")])
        write(connection, [sent.entry(sent.resumed(), "resumed", generation=1)])
        assert mark_lost(connection, HOUR_S) == 1
        rows = connection.execute("SELECT id, status FROM asr_sessions ORDER BY id").fetchall()
        assert rows == [
            ("over", "completed"),
            ("resumed", "active"),
            ("silent", "lost"),
            ("speaking", "active"),
        ]
        write(connection, [sent.entry(sent.finished(), "silent")])
        found = connection.execute("SELECT status FROM asr_sessions WHERE id = 'silent'").fetchone()
        assert found == ("completed",)


def terms(connection: psycopg.Connection[tuple[str]], session_id: str) -> str | None:
    query = "SELECT terms FROM asr_sessions WHERE id = %s"
    row = connection.execute(query, (session_id,)).fetchone()
    assert row is not None
    return row[0]


def test_sessions_of_a_release_without_search_are_indexed_a_few_at_a_time(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection, load_migrations()[:6])
        for number in range(5):
            connection.execute(
                "INSERT INTO asr_sessions (id, status, text) VALUES (%s, 'completed', 'Nine two')",
                (f"s{number}",),
            )
        connection.execute("INSERT INTO asr_sessions (id) VALUES ('running')")
        migrate(connection)
        assert [index_texts(connection, 3) for _ in range(3)] == [3, 2, 0]
        assert terms(connection, "s4") == "'nine' 'two'"
        assert terms(connection, "running") is None


def test_a_session_without_a_text_of_its_own_has_the_terms_of_its_segments(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        bodies = (
            sent.started(),
            sent.segment(1, "气好"),
            sent.segment(0, "今天"),
            sent.finished(text=None),
        )
        write(connection, [sent.entry(body) for body in bodies])
        assert terms(connection, "s") is None
        assert index_texts(connection) == 1
        assert terms(connection, "s") == "'今天' '天气' '好' '气好'"


@pytest.mark.parametrize(
    ("status", "stored"), [("completed", "'one' 'two'"), ("abandoned", "'one' 'two'")]
)
def test_the_end_of_a_session_is_stored_with_its_terms(
    database: str, status: str, stored: str
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        write(connection, [sent.entry(sent.started()), sent.entry(sent.finished(status=status))])
        assert terms(connection, "s") == stored
        silent = sent.finished(text="", segment_count=0)
        write(connection, [sent.entry(sent.started(), "silent"), sent.entry(silent, "silent")])
        assert terms(connection, "silent") == ""
        assert index_texts(connection) == 0


def test_a_deleted_session_has_no_terms(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        write(connection, [sent.entry(sent.finished()), sent.entry(sent.deleted())])
        assert terms(connection, "s") is None
        assert index_texts(connection) == 0


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
    monkeypatch.setattr(chores, "ROWS_MAX", 10)
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
            (chores.SESSIONS_MAX + 1,),
        )
        assert [delete_old(connection, DAYS) for _ in range(2)] == [chores.SESSIONS_MAX, 1]
