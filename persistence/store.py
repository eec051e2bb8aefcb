"""Writes batches to PostgreSQL, one transaction each. Data written twice, or in another
order, results in the same rows.

The records of a session are merged by these rules, whatever their order:

* started: the earliest record counts.
* resumed: the session gets the new generation, and is active again unless it is complete. Later
  data of an older generation is dropped and counted, except chunks, which do not differ.
* finished: completed takes precedence over failed, failed over abandoned, abandoned over
  interrupted. Of two equal ones the latest counts. The record can include the start.
* chunks: the first row of an index stays.
* segments: a row of a newer generation replaces one of an older generation. Within a generation, a
  gateway's copy replaces the published row, because the client received the copy's text; otherwise
  the first row stays. The end deletes segments that only an older generation had, and all segments
  of older generations if the session was started again.
* speakers: see ``persistence.speakers``. The end deletes labels as it deletes segments.
* deleted: the row becomes a tombstone. Content is deleted, and later data is dropped and counted.

The first record of any kind inserts the session's row. It belongs to no tenant before the start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
import structlog
from msgspec.structs import asdict, replace

from persistence import metrics, segments, speakers
from persistence.batch_buffer import Entry
from persistence.search_terms import terms_of
from persistence.values import TIME_MS_MAX, as_json, clean, clean_item, wall_time
from wire.messages import Failure, Segment
from wire.records import (
    ChunkDetails,
    RecordBody,
    SegmentCopy,
    SessionDeleted,
    SessionFinished,
    SessionResumed,
    SessionStarted,
    SpeakerLabels,
)

Connection: TypeAlias = psycopg.Connection[Any]
Cursor: TypeAlias = psycopg.Cursor[Any]
Body = TypeVar("Body", bound=RecordBody)

REJECTED_CODE = "unstorable"
CONTENT_ERRORS = (psycopg.DataError, psycopg.IntegrityError, ValueError, OverflowError)
"""Raised by psycopg or PostgreSQL for a row that cannot be stored."""

TIMELESS = (ChunkDetails, SessionDeleted)
"""Records that are written whatever their generation."""

_PLACEHOLDERS = """
INSERT INTO asr_sessions (id, tenant) SELECT unnest(%s::text[]), '' ON CONFLICT DO NOTHING
"""
# In a fixed order, so that two writers cannot deadlock. The locks keep a concurrent deletion from
# happening between this query and the inserts.
_LOCK_LIVE = """
SELECT id, generation FROM asr_sessions
WHERE id = ANY (%s) AND status <> 'deleted'
ORDER BY id FOR UPDATE
"""
_STARTED = """
UPDATE asr_sessions
SET user_id = %(user_id)s, client = %(client)s, mode = %(mode)s, language = %(language)s,
    created_at = %(started_at_ms)s, resume_token_hash = %(resume_token_hash)s, model = %(model)s,
    tenant = %(tenant)s, started = true,
    generation = greatest(generation, %(generation)s)
WHERE id = %(session_id)s AND status <> 'deleted'
  AND (NOT started OR created_at > %(started_at_ms)s OR tenant = '')
"""
# The first gateway that claims a generation gets it. A complete session cannot be claimed, nor one
# with another token. A session is complete if its start, its end and all its segments are stored:
# if its gateway was killed before all of them were confirmed, its client sends the rest again.
# Without a start there is no token to compare.
_RESUMED = """
UPDATE asr_sessions
SET generation = %(generation)s, gateway_id = %(gateway_id)s, resumed_at = now(),
    status = 'active', completed_at = NULL
WHERE id = %(session_id)s AND status <> 'deleted' AND generation < %(generation)s
  AND (NOT started
       OR (resume_token_hash = %(resume_token_hash)s
           AND (status NOT IN ('completed', 'failed')
                OR segment_count > (SELECT count(*) FROM asr_segments
                                    WHERE session_id = asr_sessions.id AND NOT provisional))))
"""
_FINISHED = """
UPDATE asr_sessions
SET status = %(status)s, text = %(text)s, terms = array_to_tsvector(%(terms)s::text[]),
    duration_ms = %(duration_ms)s, chunk_count = %(chunk_count)s,
    segment_count = %(segment_count)s, completed_at = %(completed_at_ms)s,
    error_code = CASE WHEN error_code = 'unstorable' THEN error_code
                      ELSE %(error_code)s END,
    error_message = CASE WHEN error_code = 'unstorable' THEN error_message
                         ELSE %(error_message)s END
WHERE id = %(session_id)s AND status <> 'deleted'
  AND (array_position(%(ranks)s, status), coalesce(completed_at, '-infinity'))
    < (array_position(%(ranks)s, %(status)s::text), %(completed_at_ms)s)
"""
_RANKS = ["active", "lost", "interrupted", "abandoned", "failed", "completed"]
# Segments of an older generation that the present one, with fewer segments, has not replaced.
_SUPERSEDED = """
DELETE FROM {}
WHERE session_id = %(session_id)s AND segment_index >= %(first_index)s
  AND generation < %(generation)s
"""
_CHUNKS = """
INSERT INTO asr_chunks
    (session_id, chunk_index, byte_count, offset_ms, duration_ms, received_at)
SELECT session_id, chunk_index, byte_count, offset_ms, duration_ms,
       to_timestamp(least(received_at_ms, %s) / 1000.0)
FROM json_to_recordset(%s::json) AS record (session_id text, chunks json),
     json_to_recordset(chunks) AS chunk (
         chunk_index bigint, byte_count bigint, offset_ms bigint, duration_ms bigint,
         received_at_ms bigint)
ON CONFLICT DO NOTHING
"""
_TOMBSTONES = """
UPDATE asr_sessions
SET status = 'deleted', user_id = '', client = '', mode = '', language = '', text = NULL,
    terms = NULL, duration_ms = NULL, chunk_count = NULL, segment_count = NULL,
    error_code = NULL, error_message = NULL, completed_at = NULL, started = false,
    deleted_at = row.at, resume_token_hash = '', gateway_id = '', model = '', tenant = ''
FROM unnest(%s::text[], %s::timestamptz[]) AS row (session_id, at)
WHERE asr_sessions.id = row.session_id AND status <> 'deleted'
"""
_MARK_REJECTED = """
UPDATE asr_sessions SET error_code = %s, error_message = %s
WHERE id = %s AND status <> 'deleted' AND error_code IS NULL
"""


def write(connection: Connection, entries: Sequence[Entry]) -> list[Entry]:
    """Write ``entries`` in one transaction, which is committed on return. Return the entries that
    were dropped because their session has a newer generation.

    If the database refuses the batch because of its content, each entry is written separately. A
    refused entry is logged and counted, and its session gets the error ``unstorable`` in the same
    transaction. The entry can then be confirmed, because it would be refused again each time.

    Raises:
        psycopg.Error: if the database cannot be written to. Nothing was written; try again later.
    """
    try:
        with connection.transaction():
            return _apply(connection, entries)
    except CONTENT_ERRORS:
        with connection.transaction():
            return [stale for entry in entries for stale in _apply_alone(connection, entry)]


def _apply_alone(connection: Connection, entry: Entry) -> list[Entry]:
    try:
        with connection.transaction():
            return _apply(connection, [entry])
    except CONTENT_ERRORS as error:
        kind = type(entry.body).__name__
        metrics.REJECTED_ROWS.labels(kind).inc(entry.rows)
        # Not the error's text: it may quote the row, which holds what people said.
        state = error.sqlstate if isinstance(error, psycopg.Error) else None
        reason = state or type(error).__name__
        structlog.get_logger().error(
            "row_rejected", session_id=entry.session_id, kind=kind, reason=reason
        )
        with connection.transaction():
            connection.execute(_PLACEHOLDERS, ([entry.session_id],))
            message = f"{kind} refused by the database: {reason}"
            connection.execute(_MARK_REJECTED, (REJECTED_CODE, message, entry.session_id))
        return []


def _apply(connection: Connection, entries: Sequence[Entry]) -> list[Entry]:
    session_ids = sorted({entry.session_id for entry in entries})
    connection.execute(_PLACEHOLDERS, (session_ids,))
    generations: dict[str, int] = dict(connection.execute(_LOCK_LIVE, (session_ids,)).fetchall())
    groups: defaultdict[type, list[Entry]] = defaultdict(list)
    superseded: list[Entry] = []
    for entry in entries:
        kind = type(entry.body)
        if entry.session_id not in generations:
            if kind is not SessionDeleted:
                metrics.LATE_ROWS.labels(kind.__name__).inc(entry.rows)
        elif entry.generation < generations[entry.session_id] and kind not in TIMELESS:
            metrics.STALE_ROWS.labels(kind.__name__).inc(entry.rows)
            superseded.append(entry)
        else:
            groups[kind].append(entry)
    groups[SessionStarted] += starts_in_ends(groups[SessionFinished])
    with connection.cursor() as cursor:
        for kind, write_group in _WRITERS.items():
            if groups[kind]:
                write_group(cursor, groups[kind])
    return superseded


def _fields(entry: Entry) -> dict[str, Any]:
    """Return the fields of a record and of its key as query parameters. Fields whose names end in
    ``_at_ms`` are converted to timestamps."""
    fields = {
        name: wall_time(value) if name.endswith("_at_ms") else _stored(value)
        for name, value in asdict(entry.body).items()
    }
    return {**fields, "session_id": entry.session_id, "generation": entry.generation}


def _update_each(query: str) -> Callable[[Cursor, list[Entry]], None]:
    return lambda cursor, entries: cursor.executemany(query, [_fields(entry) for entry in entries])


def _write_finished(cursor: Cursor, entries: list[Entry]) -> None:
    rows = [
        {
            **_fields(entry),
            **_error(body.failure),
            "terms": _terms(body),
            "ranks": _RANKS,
            "first_index": first_superseded(body),
        }
        for entry, body in _of(SessionFinished, entries)
    ]
    cursor.executemany(_FINISHED, rows)
    superseding = [row for row in rows if row["generation"] and row["status"] != "interrupted"]
    if superseding:
        for table in ("asr_segments", "asr_speakers"):
            cursor.executemany(_SUPERSEDED.format(table), superseding)
    speakers.erase(cursor, [entry.session_id for entry in entries])


def _terms(ending: SessionFinished) -> list[str] | None:
    """None: the session's text is that of its segments, see ``persistence.chores``."""
    if not ending.text and ending.segment_count:
        return None
    return terms_of([ending.text or ""])


def first_superseded(ending: SessionFinished) -> int:
    """Return the first index from which rows of older generations are deleted: 0 if the session was
    started again and is complete, so that none remains in place of one that is still to come."""
    restarted = ending.started is not None and ending.status in ("completed", "failed")
    return 0 if restarted else ending.segment_count


def _write_chunks(cursor: Cursor, entries: list[Entry]) -> None:
    records = as_json(
        {"session_id": entry.session_id, "chunks": body.chunks}
        for entry, body in _of(ChunkDetails, entries)
    )
    cursor.execute(_CHUNKS, (TIME_MS_MAX, records))


_fields_of = attrgetter(*Segment.__struct_fields__)


def segment_row(session_id: str, generation: int, segment: SegmentCopy) -> dict[str, Any]:
    """``segment`` as values of ``segments.COLUMNS``, by name."""
    text = None if segment.failure else clean(segment.segment_text)
    error = _error(segment.failure).values()
    values = (session_id, generation, text, *error, *map(_stored, _fields_of(segment)))
    return dict(zip(segments.COLUMNS, values, strict=True))


def _error(failure: Failure | None) -> dict[str, str | None]:
    return {
        "error_code": clean(failure.code) if failure else None,
        "error_message": clean(failure.message) if failure else None,
    }


def _stored(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    return [clean_item(item) for item in value] if isinstance(value, tuple) else value


def _write_segments(cursor: Cursor, entries: list[Entry]) -> None:
    for from_gateway in (False, True):
        # A statement cannot update a row twice. The first row of the newest generation is kept.
        rows: dict[tuple[str, int], tuple[int, dict[str, Any]]] = {}
        for entry, body in _of(SegmentCopy, entries):
            if entry.from_gateway is not from_gateway:
                continue
            key = entry.session_id, body.seq
            if key not in rows or rows[key][0] < entry.generation:
                row = segment_row(entry.session_id, entry.generation, body)
                rows[key] = entry.generation, row
        if rows:
            written = as_json(row for _, row in rows.values())
            cursor.execute(segments.UPSERT, (written, from_gateway))


def _write_deleted(cursor: Cursor, entries: list[Entry]) -> None:
    bodies = _of(SessionDeleted, entries)
    delete_sessions(cursor, {e.session_id: wall_time(body.requested_at_ms) for e, body in bodies})


def delete_sessions(cursor: Cursor, times: Mapping[str, datetime]) -> None:
    """Leave tombstones of the sessions, which are deleted at these times."""
    cursor.execute(_TOMBSTONES, (list(times), list(times.values())))
    for table in ("asr_segments", "asr_chunks", "asr_speakers", "asr_speaker_centroids"):
        cursor.execute(f"DELETE FROM {table} WHERE session_id = ANY (%s)", (list(times),))


_WRITERS: Final[dict[type, Callable[[Cursor, list[Entry]], None]]] = {
    SessionStarted: _update_each(_STARTED),
    ChunkDetails: _write_chunks,
    SegmentCopy: _write_segments,
    SpeakerLabels: speakers.write,
    SessionFinished: _write_finished,
    # After all data of the previous generation, even if that was published later: the new gateway
    # reads the session after this COMMIT.
    SessionResumed: _update_each(_RESUMED),
    # Last, because it deletes rows that the same batch has just written.
    SessionDeleted: _write_deleted,
}


def starts_in_ends(finished: Iterable[Entry]) -> list[Entry]:
    """Return the starts included in ``finished``, as entries of their own."""
    return [
        replace(entry, body=body.started)
        for entry, body in _of(SessionFinished, finished)
        if body.started is not None
    ]


def _of(kind: type[Body], entries: Iterable[Entry]) -> Iterator[tuple[Entry, Body]]:
    for entry in entries:
        assert isinstance(entry.body, kind)
        yield entry, entry.body
