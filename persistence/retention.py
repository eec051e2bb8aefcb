"""Deletes sessions that are older than ``RETENTION_DAYS``, a few in each transaction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from persistence.store import delete_sessions

SESSIONS_MAX: Final = 50
"""Sessions in a transaction …"""
ROWS_MAX: Final = 20_000
"""… and rows of chunks and segments, so that new rows are written soon; one session may have
more."""

# Active sessions are left until they end, or are marked lost. ``created_at`` has an index.
_OLD = """
SELECT id, coalesce(chunk_count, 0) + coalesce(segment_count, 0)
FROM asr_sessions
WHERE status NOT IN ('active', 'deleted') AND created_at < %s
ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED
"""


def delete_old(connection: psycopg.Connection[Any], days: float) -> int:
    """Delete some of the sessions that began more than ``days`` days ago, as a client's request
    would. Return their number; 0: there are no more."""
    now = datetime.now(UTC)
    with connection.transaction(), connection.cursor() as cursor:
        found = cursor.execute(_OLD, (now - timedelta(days=days), SESSIONS_MAX)).fetchall()
        rows = 0
        chosen: list[str] = []
        for session_id, its_rows in found:
            rows += its_rows
            if chosen and rows > ROWS_MAX:
                break
            chosen.append(session_id)
        if chosen:
            delete_sessions(cursor, dict.fromkeys(chosen, now))
        return len(chosen)
