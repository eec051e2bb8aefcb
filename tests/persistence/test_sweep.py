from __future__ import annotations

import psycopg

from persistence.migrate import migrate
from persistence.store import write
from persistence.sweep import mark_lost
from tests.persistence import sent

HOUR_S = 3_600.0


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
