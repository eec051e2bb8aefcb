"""Bodies of ``Record`` messages: what a gateway wants stored besides recognised segments.

Typed here because two processes share them: the gateway builds them with ``to_body``, persistence
reads them with ``parse_body``. A session's records may arrive late, twice or in any order.
"""

from __future__ import annotations

from typing import Any, Literal

from wire.checkers import LongText, WireError, checker_of
from wire.messages import Failure, Result, Token
from wire.plain import plain_data, plain_of

SessionStatus = Literal["completed", "failed", "abandoned", "interrupted"]

DELETED_RECORD_SEQ = (1 << 31) - 1
"""The record_seq of every SessionDeleted: a deletion may come from a gateway that never saw
the session's other records, and doing it twice is harmless."""
TRANSCRIPT_BYTES_MAX = 3 << 18
"""Of a session's text in its end's record, as UTF-8: some 14 hours of speech. A longer one is not
in ``asr_sessions``; who reads it joins the segments' texts."""
RESUMED_RECORD_SEQ = DELETED_RECORD_SEQ - 1
"""The record_seq of every SessionResumed; each is the only one of its generation."""


@plain_data
class SessionStarted:
    user_id: str
    client: str
    """The peer's address, for operators."""
    mode: str
    language: str
    started_at_ms: int
    """Wall clock, milliseconds since 1970, UTC: for people, never for timeouts."""
    resume_token_hash: str = ""
    """SHA-256 in hexadecimal of what the client shows to go on with the session."""


@plain_data
class SessionResumed:
    """From the record's generation on the session is with this gateway. When it is stored, every
    earlier publication is, too; what comes later from an older generation is not stored."""

    gateway_id: str
    resume_token_hash: str


@plain_data
class ChunkDetail:
    chunk_index: int
    byte_count: int
    offset_ms: int
    """Where the chunk's audio begins on the session's timeline."""
    duration_ms: int
    received_at_ms: int


@plain_data
class ChunkDetails:
    chunks: tuple[ChunkDetail, ...]


@plain_data
class SessionFinished:
    status: SessionStatus
    text: LongText | None
    """None: longer than ``TRANSCRIPT_BYTES_MAX``, only its segments have it."""
    duration_ms: int
    chunk_count: int
    segment_count: int
    completed_at_ms: int
    failure: Failure | None
    started: SessionStarted | None = None
    """If it started at this gateway. Should that record be lost, a session of which only the end
    were known would begin anew when its client resumes it elsewhere."""


@plain_data
class SegmentCopy:
    """A whole row of ``asr_segments``, from the gateway, because persistence did not confirm
    the one that the broker published."""

    seq: int
    start_ms: int
    end_ms: int
    last_chunk_index: int
    segment_text: str
    failure: Failure | None
    tokens: tuple[Token, ...]
    worker_id: str
    attempt: int
    queue_ms: int
    infer_ms: int
    provisional: bool = False
    resume_chunk_index: int = 0
    resume_sample: int = 0


@plain_data
class SessionDeleted:
    requested_at_ms: int


RecordBody = (
    SessionStarted | SessionResumed | ChunkDetails | SessionFinished | SegmentCopy | SessionDeleted
)

_TYPES: dict[str, type] = {
    "started": SessionStarted,
    "resumed": SessionResumed,
    "chunks": ChunkDetails,
    "finished": SessionFinished,
    "segment": SegmentCopy,
    "deleted": SessionDeleted,
}
_NAMES = {cls: name for name, cls in _TYPES.items()}
_checkers = {name: checker_of(cls, f"record.{name}") for name, cls in _TYPES.items()}
_plain = {cls: plain_of(cls) for cls in _NAMES}


def segment_copy(result: Result) -> SegmentCopy:
    """A final result as a row of ``asr_segments``."""
    return SegmentCopy(
        seq=result.seq,
        start_ms=result.start_ms,
        end_ms=result.end_ms,
        last_chunk_index=result.last_chunk_index,
        segment_text=result.text or "",
        failure=result.error,
        tokens=result.tokens,
        worker_id=result.worker_id,
        attempt=result.attempt,
        queue_ms=result.queue_ms,
        infer_ms=result.infer_ms,
        provisional=result.provisional,
        resume_chunk_index=result.resume_chunk_index,
        resume_sample=result.resume_sample,
    )


def to_body(record: RecordBody) -> dict[str, Any]:
    """``record`` as the plain map a ``Record`` message carries."""
    return {"type": _NAMES[type(record)], **_plain[type(record)](record)}


def parse_body(body: dict[str, Any]) -> RecordBody:
    """The typed record in ``body``.

    Raises:
        WireError: for an unknown type or wrong fields.
    """
    name = body.get("type")
    if not isinstance(name, str) or name not in _TYPES:
        raise WireError("record: unknown type")
    rest = {key: value for key, value in body.items() if key != "type"}
    record: RecordBody = _checkers[name](rest)
    return record
