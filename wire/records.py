"""Bodies of ``Record`` messages: what a gateway wants stored besides recognised segments.

Typed here because two processes share them: the gateway builds them with ``to_body``, persistence
reads them with ``parse_body``. A session's records may arrive late, twice or in any order.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Literal

import msgspec
from msgspec import Struct

from wire.messages import Failure, Result, Segment
from wire.validation import LongText, Text, UInt, convert

SessionStatus = Literal["completed", "failed", "abandoned", "interrupted"]

DELETED_RECORD_SEQ = (1 << 31) - 1
"""The record_seq of every SessionDeleted: a deletion may come from a gateway that never saw
the session's other records, and doing it twice is harmless."""
TRANSCRIPT_BYTES_MAX = 3 << 18
"""Of a session's text in its end's record, as UTF-8: some 14 hours of speech. A longer one is not
in ``asr_sessions``; who reads it joins the segments' texts."""
RESUMED_RECORD_SEQ = DELETED_RECORD_SEQ - 1
"""The record_seq of every SessionResumed; each is the only one of its generation."""


class SessionStarted(Struct, frozen=True, kw_only=True, gc=False, tag="started"):
    user_id: Text
    client: Text
    """The peer's address, for operators."""
    mode: Text
    language: Text
    started_at_ms: UInt
    """Wall clock, milliseconds since 1970, UTC: for people, never for timeouts."""
    resume_token_hash: Text = ""
    """SHA-256 in hexadecimal of what the client shows to go on with the session."""


class SessionResumed(Struct, frozen=True, kw_only=True, gc=False, tag="resumed"):
    """From the record's generation on the session is with this gateway. When it is stored, every
    earlier publication is, too; what comes later from an older generation is not stored."""

    gateway_id: Text
    resume_token_hash: Text


class ChunkDetail(Struct, frozen=True, kw_only=True, gc=False):
    chunk_index: UInt
    byte_count: UInt
    offset_ms: UInt
    """Where the chunk's audio begins on the session's timeline."""
    duration_ms: UInt
    received_at_ms: UInt


class ChunkDetails(Struct, frozen=True, kw_only=True, gc=False, tag="chunks"):
    chunks: tuple[ChunkDetail, ...]


class SessionFinished(Struct, frozen=True, kw_only=True, gc=False, tag="finished"):
    status: SessionStatus
    text: LongText | None
    """None: longer than ``TRANSCRIPT_BYTES_MAX``, only its segments have it."""
    duration_ms: UInt
    chunk_count: UInt
    segment_count: UInt
    completed_at_ms: UInt
    failure: Failure | None
    started: SessionStarted | None = None
    """If it started at this gateway. Should that record be lost, a session of which only the end
    were known would begin anew when its client resumes it elsewhere."""


class SegmentCopy(Segment, frozen=True, kw_only=True, gc=False, tag="segment"):
    """A row of ``asr_segments`` from the gateway, because persistence did not confirm the one that
    the broker published."""

    segment_text: Text
    failure: Failure | None


class SessionDeleted(Struct, frozen=True, kw_only=True, gc=False, tag="deleted"):
    requested_at_ms: UInt


RecordBody = (
    SessionStarted | SessionResumed | ChunkDetails | SessionFinished | SegmentCopy | SessionDeleted
)


class _Parsed(Struct, frozen=True, gc=False):
    """msgspec compiles a class once, a bare union at each call (9 µs)."""

    body: RecordBody


def segment_copy(result: Result) -> SegmentCopy:
    """A final result as a row of ``asr_segments``."""
    fields = dict(zip(Segment.__struct_fields__, _segment_of(result), strict=True))
    return SegmentCopy(segment_text=result.text or "", failure=result.error, **fields)


_segment_of = attrgetter(*Segment.__struct_fields__)


def to_body(record: RecordBody) -> dict[str, Any]:
    """``record`` as the map that a ``Record`` message carries; its key ``type`` names the class."""
    body: dict[str, Any] = msgspec.to_builtins(record)
    return body


def parse_body(body: dict[str, Any]) -> RecordBody:
    """The typed record in ``body``.

    Raises:
        WireError: for an unknown type, or a missing or invalid field.
    """
    return convert({"body": body}, _Parsed, "record").body
