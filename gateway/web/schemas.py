"""Bodies of the REST answers, as the OpenAPI description at ``/docs`` shows them."""

from __future__ import annotations

from typing import Any, get_type_hints

from msgspec import to_builtins
from pydantic import BaseModel, create_model

from wire.messages import Result, Segment


class ProblemAnswer(BaseModel):
    code: str
    message: str


class AdmissionAnswer(BaseModel):
    admitted: bool


class LimitAnswer(BaseModel):
    value: int
    source: str
    """Where the value came from: environment or default."""


class HealthAnswer(BaseModel):
    status: str
    """ok; degraded: texts come, but storage or metadata is missing; unavailable: no worker."""
    reason: str | None
    funasr_ready: bool
    redis_ready: bool
    db_ready: bool
    workers_ready: int
    models: list[str]
    """What recognises. ``demo`` knows spoken digits only."""
    connections: int
    """WebSockets of this gateway."""
    limits: dict[str, LimitAnswer]


INTERNAL = frozenset(
    ("seq", "last_chunk_index", "provisional", "resume_chunk_index", "resume_sample")
)
"""Fields of ``wire.messages.Segment`` that REST does not show; ``seq`` is ``segment_index``."""
_SHOWN = {name: hint for name, hint in get_type_hints(Segment).items() if name not in INTERNAL}
_segment_fields: dict[str, Any] = {
    "segment_index": int,
    "text": str | None,
    "error": dict[str, str] | None,
    **_SHOWN,
    "tokens": list[dict[str, Any]],
}
SegmentAnswer = create_model("SegmentAnswer", **_segment_fields)


def segment_answer(result: Result) -> dict[str, Any]:
    """``result`` in the shape of ``SegmentAnswer``."""
    return {
        "segment_index": result.seq,
        "text": result.text,
        "error": to_builtins(result.error),
        **{name: to_builtins(getattr(result, name)) for name in _SHOWN},
    }


class ChunkAnswer(BaseModel):
    chunk_index: int
    bytes: int
    offset_ms: int
    duration_ms: int
    received_at: str


class HistoryRecord(BaseModel):
    session_id: str
    user_id: str
    status: str
    text: str
    duration: float
    """Seconds of audio."""
    chunk_count: int
    segment_count: int
    created_at: str
    completed_at: str | None


class HistoryAnswer(BaseModel):
    total: int
    records: list[HistoryRecord]


class SessionAnswer(HistoryRecord):
    live: bool = False
    """Still in this gateway's hands; what is stored may be less."""
    segments: list[SegmentAnswer]  # type: ignore[valid-type]
    chunks: list[ChunkAnswer]


class DeletedAnswer(BaseModel):
    session_id: str
    deleted: bool
    """False: accepted, not committed yet."""


class QueueStatus(BaseModel):
    broker_ready: bool
    queued: int
    processing: int
    failed: int
    workers: int
    workers_busy: int
    est_wait_ms: int


class PercentilesAnswer(BaseModel):
    p50: float | None
    p95: float | None
    p99: float | None


class WorkerAnswer(BaseModel):
    """What a worker did for this gateway, partials included."""

    worker_id: str
    results: int
    failures: int
    audio_seconds: float
    rtfx: float
    """Seconds of audio in a second of work."""
    batch_jobs_mean: float
    batch_jobs_max: int
    seen_s: float
    """Since its last result, to a slot."""


class SeriesAnswer(BaseModel):
    """A value a slot, the present slot last."""

    sessions: list[int]
    """Most at a time."""
    queued: list[int]
    """Likewise, of the whole system."""
    results: list[int]
    refused: list[int]
    latency_p50_ms: list[float | None]
    latency_p95_ms: list[float | None]


class RecentAnswer(BaseModel):
    """What this gateway saw in the last ``window_s`` seconds."""

    window_s: float
    slot_s: float
    results: int
    failures: int
    audio_seconds: float
    latency_ms: PercentilesAnswer
    """From an utterance's end, as the gateway heard it, to its text at the gateway."""
    refused: dict[str, int]
    """Connections refused, by code."""
    workers: list[WorkerAnswer]
    series: SeriesAnswer


class StatsAnswer(BaseModel):
    gateway_id: str
    uptime_s: float
    connections: int
    connections_total: int
    """Of all gateways, as of a second ago."""
    sessions_active: int
    sessions_started: int
    audio_seconds: float
    records_waiting: int
    """To be stored; at ``records_waiting_max`` new sessions are refused."""
    records_waiting_max: int
    queue: QueueStatus
    throughput_rtfx: float
    """Seconds of audio that all workers recognise in a second, by the broker's measure."""
    models: list[str]
    recent: RecentAnswer
