"""Bodies of ``Record`` messages: data of a session that is stored besides its results.

The gateway builds them with ``to_body``, persistence reads them with ``parse_body``, and the broker
passes them on unread. Records of a session may arrive late, twice, and in any order.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Literal

import msgspec
from msgspec import Struct

from wire.messages import Failure, Result, Segment
from wire.validation import Embedding, LongText, Text, UInt, convert

SessionStatus = Literal["completed", "failed", "abandoned", "interrupted"]

DELETED_RECORD_SEQ = (1 << 31) - 1
"""The ``record_seq`` of every SessionDeleted. A fixed number, because the deletion may come from a
gateway that has none of the session's other records. Deleting twice is harmless."""
RESUMED_RECORD_SEQ = DELETED_RECORD_SEQ - 1
"""The ``record_seq`` of every SessionResumed, of which each generation has one."""
DEFAULT_TENANT = "default"
"""The tenant of clients whose token names none, and of sessions from before there were tenants."""
TRANSCRIPT_BYTES_MAX = 3 << 18
"""Longest text in SessionFinished, as UTF-8: 14 hours of speech. A longer one is not stored there:
readers join the texts of the segments."""


class SessionStarted(Struct, frozen=True, kw_only=True, gc=False, tag="started"):
    user_id: Text
    client: Text
    """The client's address, for operators."""
    mode: Text
    language: Text
    started_at_ms: UInt
    """Wall clock, milliseconds since 1970 (UTC)."""
    resume_token_hash: Text = ""
    """SHA-256 of the client's resume token, in hexadecimal."""
    model: Text = ""
    """Served name of its model; ``""``: any."""
    tenant: Text = DEFAULT_TENANT
    """Owner of the session: only clients of this tenant may use it."""


class SessionResumed(Struct, frozen=True, kw_only=True, gc=False, tag="resumed"):
    """From this generation on, the session belongs to this gateway. Once this record is stored,
    every earlier publication is stored too, and later ones of an older generation are dropped."""

    gateway_id: Text
    resume_token_hash: Text


class ChunkDetail(Struct, frozen=True, kw_only=True, gc=False):
    chunk_index: UInt
    byte_count: UInt
    offset_ms: UInt
    """Start of the chunk's audio on the session's timeline."""
    duration_ms: UInt
    received_at_ms: UInt


class ChunkDetails(Struct, frozen=True, kw_only=True, gc=False, tag="chunks"):
    chunks: tuple[ChunkDetail, ...]


class SessionFinished(Struct, frozen=True, kw_only=True, gc=False, tag="finished"):
    status: SessionStatus
    text: LongText | None
    """None: longer than ``TRANSCRIPT_BYTES_MAX``, see there."""
    duration_ms: UInt
    chunk_count: UInt
    segment_count: UInt
    completed_at_ms: UInt
    failure: Failure | None
    started: SessionStarted | None = None
    """A copy of the session's SessionStarted, if it started at this gateway. Should that record be
    lost, another gateway could not resume the session without this copy."""


class SegmentCopy(Segment, frozen=True, kw_only=True, gc=False, tag="segment"):
    """A row of ``asr_segments``, sent by the gateway because persistence did not confirm the row
    that the broker published."""

    segment_text: Text
    failure: Failure | None


class SpeakerCentroid(Struct, frozen=True, kw_only=True, gc=False):
    """The voice of a speaker, by which a gateway that takes the session over recognises it."""

    speaker: UInt
    weight_ms: UInt
    """Duration of the utterances in ``vector``."""
    vector: Embedding
    """The mean of their embeddings, as float32, little-endian."""


class SpeakerLabels(Struct, frozen=True, kw_only=True, gc=False, tag="speakers"):
    """Speakers of consecutive segments. Of two labels of a segment, the later record's counts.

    Centroids are voice prints. Only those of the latest record are kept, until the session ends.
    """

    first_segment_index: UInt
    speakers: tuple[UInt, ...]
    """0: unknown."""
    centroids: tuple[SpeakerCentroid, ...] = ()
    """Empty: those stored before remain."""


class SessionDeleted(Struct, frozen=True, kw_only=True, gc=False, tag="deleted"):
    requested_at_ms: UInt


RecordBody = (
    SessionStarted
    | SessionResumed
    | ChunkDetails
    | SessionFinished
    | SegmentCopy
    | SpeakerLabels
    | SessionDeleted
)


class _Parsed(Struct, frozen=True, gc=False):
    """Holds any body. msgspec compiles a class once, but a bare union at each call (9 µs)."""

    body: RecordBody


def segment_copy(result: Result) -> SegmentCopy:
    """Return a copy of a final result."""
    fields = dict(zip(Segment.__struct_fields__, _segment_of(result), strict=True))
    return SegmentCopy(segment_text=result.text or "", failure=result.error, **fields)


_segment_of = attrgetter(*Segment.__struct_fields__)


def to_body(record: RecordBody) -> dict[str, Any]:
    """Return ``record`` as the body of a ``Record`` message; its key ``type`` names the class."""
    return dict(msgspec.to_builtins(record))


def parse_body(body: dict[str, Any]) -> RecordBody:
    """Return the typed record in ``body``.

    Raises:
        WireError: for an unknown type, or a missing or invalid field.
    """
    return convert({"body": body}, _Parsed, "record").body
