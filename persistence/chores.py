"""Periodic work on stored sessions: those without an end are marked ``lost``, texts are indexed,
and old sessions are deleted. Each turn takes a few, so that new rows wait for milliseconds."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import psycopg
import structlog
from msgspec import Struct

from persistence import metrics
from persistence.search_terms import terms_of
from persistence.speakers import erase_old
from persistence.store import delete_sessions

EVERY_S: Final = 60.0
"""Interval of each kind of work …"""
AGAIN_S: Final = 0.2
"""… while it finds sessions. New rows are written in between."""
SESSIONS_MAX: Final = 50
"""Sessions that are indexed, or deleted, at a time …"""
ROWS_MAX: Final = 20_000
"""… and rows of chunks and segments that are deleted; one session may have more."""

Connection: TypeAlias = psycopg.Connection[Any]

_LOST = """
UPDATE asr_sessions s SET status = 'lost', completed_at = now(), terms = NULL
WHERE status = 'active' AND coalesce(resumed_at, created_at) < now() - %(after)s
  AND NOT EXISTS (SELECT FROM asr_segments g
                  WHERE g.session_id = s.id AND g.stored_at >= now() - %(after)s)
  AND NOT EXISTS (SELECT FROM asr_chunks c
                  WHERE c.session_id = s.id AND c.received_at >= now() - %(after)s)
"""
_NOT_INDEXED = """
SELECT s.id, CASE WHEN s.text <> '' THEN ARRAY[s.text] ELSE ARRAY(
    SELECT g.text FROM asr_segments g
    WHERE g.session_id = s.id AND g.text <> '' ORDER BY g.segment_index) END
FROM asr_sessions s WHERE s.terms IS NULL AND s.status NOT IN ('active', 'deleted')
ORDER BY s.id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_INDEX = "UPDATE asr_sessions SET terms = array_to_tsvector(%s::text[]) WHERE id = %s"
# Active sessions are left until they end, or are marked lost. ``created_at`` has an index.
_OLD = """
SELECT id, coalesce(chunk_count, 0) + coalesce(segment_count, 0)
FROM asr_sessions
WHERE status NOT IN ('active', 'deleted') AND created_at < %s
ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED
"""


class Chore(Struct):
    """One kind of work. Call ``turn`` once ``due_s`` is reached."""

    work: Callable[[Connection], int]
    """Returns the number of sessions; 0: there are no more."""
    count: Callable[[float], None]
    log: Callable[..., None]
    event: str
    """Log event; it has the number of sessions since the last one."""
    due_s: float = 0.0
    done: int = 0

    def turn(self, connection: Connection) -> None:
        """Do some of the work. After an error it is tried again in ``EVERY_S``."""
        self.due_s = time.monotonic() + EVERY_S
        sessions = self.work(connection)
        self.count(sessions)
        self.done += sessions
        if sessions:
            self.due_s = time.monotonic() + AGAIN_S
        if self.done and sessions < SESSIONS_MAX:
            self.log(self.event, sessions=self.done)
            self.done = 0


def all_chores(lost_after_s: float, retention_days: float) -> list[Chore]:
    """Return the work to do. ``retention_days`` 0: sessions are not deleted for their age."""
    log = structlog.get_logger()
    lost = functools.partial(mark_lost, after_s=lost_after_s)
    old = functools.partial(delete_old, days=retention_days)
    found = [
        Chore(lost, metrics.LOST_SESSIONS.inc, log.warning, "sessions_lost"),
        Chore(index_texts, metrics.INDEXED_SESSIONS.inc, log.info, "sessions_indexed"),
    ]
    if retention_days:
        found.append(Chore(old, metrics.EXPIRED_SESSIONS.inc, log.info, "sessions_expired"))
    return found


def mark_lost(connection: Connection, after_s: float) -> int:
    """Mark active sessions ``lost`` if nothing of them was stored for ``after_s``: their gateway
    was killed, and they were not resumed. Erase voice prints that no session needs any more. Return
    the number of sessions. The mark is not final: data that arrives later is still stored."""
    lost = connection.execute(_LOST, {"after": timedelta(seconds=after_s)}).rowcount
    erase_old(connection, after_s)
    return lost


def index_texts(connection: Connection, limit: int = SESSIONS_MAX) -> int:
    """Write the search terms of at most ``limit`` ended sessions, and return their number: of those
    that a release without search has stored, that are ``lost``, or whose text is too long for the
    record of the end. ``store`` writes those of all others."""
    with connection.transaction(), connection.cursor() as cursor:
        found = cursor.execute(_NOT_INDEXED, (limit,)).fetchall()
        cursor.executemany(_INDEX, [(terms_of(texts), session_id) for session_id, texts in found])
    return len(found)


def delete_old(connection: Connection, days: float) -> int:
    """Delete some of the sessions that began over ``days`` days ago, and return their number."""
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
