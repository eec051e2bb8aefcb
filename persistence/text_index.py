"""Search terms of ended sessions that were stored without any: by a release without search, without
an end (``lost``), or with a text too long for the record of the end.

``store`` writes the terms of all other sessions, together with their texts.
"""

from __future__ import annotations

from typing import Any

import psycopg

from persistence.search_terms import terms_of

SESSIONS_MAX = 50
"""Sessions indexed at a time, so that batches of new rows wait for milliseconds only."""

_NOT_INDEXED = """
SELECT s.id, CASE WHEN s.text <> '' THEN ARRAY[s.text] ELSE ARRAY(
    SELECT g.text FROM asr_segments g
    WHERE g.session_id = s.id AND g.text <> '' ORDER BY g.segment_index) END
FROM asr_sessions s WHERE s.terms IS NULL AND s.status NOT IN ('active', 'deleted')
ORDER BY s.id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_INDEX = "UPDATE asr_sessions SET terms = array_to_tsvector(%s::text[]) WHERE id = %s"


def index_texts(connection: psycopg.Connection[Any], limit: int = SESSIONS_MAX) -> int:
    """Index at most ``limit`` sessions, and return their number; fewer if there are no more."""
    with connection.transaction(), connection.cursor() as cursor:
        found = cursor.execute(_NOT_INDEXED, (limit,)).fetchall()
        cursor.executemany(_INDEX, [(terms_of(texts), session_id) for session_id, texts in found])
    return len(found)
