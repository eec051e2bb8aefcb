"""Marks sessions ``lost`` whose gateway was killed and that were not resumed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg

_LOST = """
UPDATE asr_sessions s SET status = 'lost', completed_at = now(), terms = NULL
WHERE status = 'active' AND coalesce(resumed_at, created_at) < now() - %(after)s
  AND NOT EXISTS (SELECT FROM asr_segments g
                  WHERE g.session_id = s.id AND g.stored_at >= now() - %(after)s)
  AND NOT EXISTS (SELECT FROM asr_chunks c
                  WHERE c.session_id = s.id AND c.received_at >= now() - %(after)s)
"""


def mark_lost(connection: psycopg.Connection[Any], after_s: float) -> int:
    """Mark active sessions ``lost`` if nothing of them was stored for ``after_s``. Return their
    number. The mark is not final: data that arrives later is still stored."""
    return connection.execute(_LOST, {"after": timedelta(seconds=after_s)}).rowcount
