"""Speaker labels and centroids of sessions: SQL and conversions.

Of several labels of a segment, that of the latest record counts: the one of the newest generation
with the highest number. Centroids are voice prints: only those of the latest record are stored, and
they are deleted at the end of the session.

Gateways read with this module, so it must not import the metrics of persistence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import msgspec
import psycopg

from persistence.batch_buffer import Entry
from wire.records import SpeakerCentroid, SpeakerLabels

_LABELS = """
INSERT INTO asr_speakers (session_id, segment_index, speaker, generation, record_seq)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
ON CONFLICT (session_id, segment_index) DO UPDATE
SET speaker = excluded.speaker, generation = excluded.generation, record_seq = excluded.record_seq
WHERE (asr_speakers.generation, asr_speakers.record_seq)
    < (excluded.generation, excluded.record_seq)
"""
_MAY_RESUME = "('active', 'interrupted')"
_CENTROIDS = f"""
INSERT INTO asr_speaker_centroids (session_id, centroids, generation, record_seq)
SELECT row.* FROM unnest(%s::text[], %s::jsonb[], %s::bigint[], %s::bigint[])
    AS row (session_id, centroids, generation, record_seq)
JOIN asr_sessions s ON s.id = row.session_id AND s.status IN {_MAY_RESUME}
ON CONFLICT (session_id) DO UPDATE
SET centroids = excluded.centroids, generation = excluded.generation,
    record_seq = excluded.record_seq
WHERE (asr_speaker_centroids.generation, asr_speaker_centroids.record_seq)
    < (excluded.generation, excluded.record_seq)
"""
_ERASE = f"""
DELETE FROM asr_speaker_centroids c USING asr_sessions s
WHERE c.session_id = ANY (%s) AND s.id = c.session_id AND s.status NOT IN {_MAY_RESUME}
"""
_ERASE_OLD = f"""
DELETE FROM asr_speaker_centroids c USING asr_sessions s
WHERE s.id = c.session_id
  AND (s.status NOT IN {_MAY_RESUME}
       OR (s.status = 'interrupted' AND s.completed_at < now() - %s))
"""
SELECT_LABELS = """
SELECT segment_index, speaker FROM asr_speakers
WHERE session_id = %s AND speaker > 0 ORDER BY segment_index LIMIT %s
"""
SELECT_CENTROIDS = "SELECT centroids FROM asr_speaker_centroids WHERE session_id = %s"


def write(cursor: psycopg.Cursor[Any], entries: Iterable[Entry]) -> None:
    """Write the labels and centroids of records. Their sessions exist."""
    labels: dict[tuple[str, int], tuple[Any, ...]] = {}
    centroids: dict[str, tuple[Any, ...]] = {}
    # A statement cannot update a row twice: the latest record is kept.
    for entry in sorted(entries, key=lambda entry: (entry.generation, entry.key.seq)):
        body, version = entry.body, (entry.generation, entry.key.seq)
        assert isinstance(body, SpeakerLabels)
        for index, speaker in enumerate(body.speakers, body.first_segment_index):
            labels[entry.session_id, index] = (entry.session_id, index, speaker, *version)
        if body.centroids:
            packed = msgspec.json.encode(body.centroids).decode()
            centroids[entry.session_id] = (entry.session_id, packed, *version)
    for query, rows in ((_LABELS, labels), (_CENTROIDS, centroids)):
        if rows:
            cursor.execute(query, [list(column) for column in zip(*rows.values(), strict=True)])


def erase(cursor: psycopg.Cursor[Any], session_ids: list[str]) -> None:
    """Delete the centroids of those sessions that have ended."""
    cursor.execute(_ERASE, (session_ids,))


def erase_old(connection: psycopg.Connection[Any], after_s: float) -> int:
    """Delete centroids of sessions that have ended, or were interrupted ``after_s`` ago."""
    return connection.execute(_ERASE_OLD, (timedelta(seconds=after_s),)).rowcount


def centroids_of(row: Mapping[str, Any]) -> tuple[SpeakerCentroid, ...]:
    """The centroids that a row was written from."""
    return msgspec.convert(row["centroids"], tuple[SpeakerCentroid, ...])
