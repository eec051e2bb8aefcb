"""Messages of gateways and the broker with a value for every field."""

from __future__ import annotations

from typing import Any

from persistence.batch_buffer import Entry
from wire import publication
from wire.messages import (
    Failure,
    PublishedRecord,
    PublishedResult,
    Record,
    Result,
    StoredKey,
    StoredKind,
    Token,
)
from wire.records import (
    ChunkDetail,
    ChunkDetails,
    RecordBody,
    SegmentCopy,
    SessionDeleted,
    SessionFinished,
    SessionResumed,
    SessionStarted,
    SpeakerCentroid,
    SpeakerLabels,
    to_body,
)

NOON_MS = 1_767_268_800_000
"""2026-01-01 12:00 UTC."""


def result(session_id: str = "s", seq: int = 0, **changes: Any) -> Result:
    fields = {
        "partial": False,
        "start_ms": seq * 1_000,
        "end_ms": seq * 1_000 + 900,
        "last_chunk_index": seq,
        "text": f"text {seq}",
        "error": None,
        "tokens": (Token(text="text", start_ms=0, end_ms=400),),
        "worker_id": "worker-1",
        "attempt": 1,
        "queue_ms": 5,
        "infer_ms": 20,
    }
    return Result(session_id=session_id, seq=seq, **{**fields, **changes})


def segment(
    seq: int = 0, text: str = "text", failure: Failure | None = None, **changes: Any
) -> SegmentCopy:
    return SegmentCopy(
        seq=seq,
        start_ms=seq * 1_000,
        end_ms=seq * 1_000 + 900,
        last_chunk_index=seq,
        segment_text="" if failure else text,
        failure=failure,
        tokens=(Token(text=text, start_ms=0, end_ms=400),),
        worker_id="worker-1",
        attempt=1,
        queue_ms=5,
        infer_ms=20,
        **changes,
    )


def started(**changes: Any) -> SessionStarted:
    fields = {
        "user_id": "ann",
        "client": "127.0.0.1",
        "mode": "auto",
        "language": "en",
        "started_at_ms": NOON_MS,
        "resume_token_hash": "hash",
    }
    return SessionStarted(**{**fields, **changes})


def finished(**changes: Any) -> SessionFinished:
    fields = {
        "status": "completed",
        "text": "one two",
        "duration_ms": 2_500,
        "chunk_count": 2,
        "segment_count": 2,
        "completed_at_ms": NOON_MS + 60_000,
        "failure": None,
    }
    return SessionFinished(**{**fields, **changes})


def chunks(*indexes: int) -> ChunkDetails:
    return ChunkDetails(
        chunks=tuple(
            ChunkDetail(
                chunk_index=index,
                byte_count=3_200,
                offset_ms=index * 100,
                duration_ms=100,
                received_at_ms=NOON_MS + index * 100,
            )
            for index in indexes
        )
    )


def deleted() -> SessionDeleted:
    return SessionDeleted(requested_at_ms=NOON_MS + 120_000)


def labels(first: int, *speakers: int, centroids: tuple[bytes, ...] = ()) -> SpeakerLabels:
    """Each centroid is of one second, the first is of speaker 1."""
    return SpeakerLabels(
        first_segment_index=first,
        speakers=speakers,
        centroids=tuple(
            SpeakerCentroid(speaker=speaker, weight_ms=1_000, vector=vector)
            for speaker, vector in enumerate(centroids, 1)
        ),
    )


def resumed(gateway_id: str = "gateway-2", token_hash: str = "hash") -> SessionResumed:
    return SessionResumed(gateway_id=gateway_id, resume_token_hash=token_hash)


def entry(
    body: RecordBody,
    session_id: str = "s",
    seq: int = 0,
    *,
    generation: int = 0,
    kind: StoredKind = "record",
) -> Entry:
    """The batch buffer's entry for a record with ``body``, or for a result."""
    return Entry(
        gateway_id="gateway-1",
        key=StoredKey(session_id=session_id, kind=kind, seq=seq, generation=generation),
        body=body,
        byte_count=100,
        received_s=0.0,
    )


def published_result(
    sequence: int, message: Result, *, gateway_id: str = "gateway-1", epoch: str = "epoch-1"
) -> list[bytes]:
    return publication.encode(
        sequence, PublishedResult(broker_epoch=epoch, gateway_id=gateway_id, result=message)
    )


def published_record(
    sequence: int,
    body: RecordBody,
    *,
    session_id: str = "s",
    record_seq: int = 0,
    gateway_id: str = "gateway-1",
    epoch: str = "epoch-1",
) -> list[bytes]:
    record = Record(session_id=session_id, record_seq=record_seq, body=to_body(body))
    return publication.encode(
        sequence, PublishedRecord(broker_epoch=epoch, gateway_id=gateway_id, record=record)
    )
