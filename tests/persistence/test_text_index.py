from __future__ import annotations

import psycopg
import pytest

from persistence.migrate import load_migrations, migrate
from persistence.store import write
from persistence.text_index import index_texts
from tests.persistence import sent


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
