"""Bodies of the REST answers, for the OpenAPI description at ``/docs``."""

from __future__ import annotations

from typing import Any, get_type_hints

from msgspec import to_builtins
from pydantic import BaseModel, create_model

from wire.messages import Abilities, Result, Segment, ServedModel


class ProblemAnswer(BaseModel):
    code: str
    message: str


class AdmissionAnswer(BaseModel):
    admitted: bool


class LimitAnswer(BaseModel):
    value: int
    source: str
    """Source of the value: environment or default."""


AbilitiesAnswer = create_model("AbilitiesAnswer", **get_type_hints(Abilities))


class ModelAnswer(BaseModel):
    """A served model."""

    name: str
    """What sessions ask for."""
    model: str
    """Empty without workers."""
    workers: int
    workers_busy: int
    est_wait_ms: int
    abilities: AbilitiesAnswer  # type: ignore[valid-type]


class HealthAnswer(BaseModel):
    status: str
    """ok; degraded: without storage or metadata, or a model has no worker; unavailable: no worker.
    """
    reason: str | None
    funasr_ready: bool
    redis_ready: bool
    db_ready: bool
    workers_ready: int
    models: list[str]
    """Models of the workers. ``demo`` recognises spoken digits only."""
    served: list[ModelAnswer]
    """Each model that sessions can ask for."""
    connections: int
    """WebSockets of this gateway."""
    limits: dict[str, LimitAnswer]


def model_answer(served: ServedModel) -> dict[str, Any]:
    """Return ``served`` as a ``ModelAnswer``."""
    return {name: to_builtins(getattr(served, name)) for name in ModelAnswer.model_fields}


INTERNAL = frozenset(
    ("seq", "last_chunk_index", "provisional", "resume_chunk_index", "resume_sample")
)
"""Fields of ``wire.messages.Segment`` that REST omits; ``seq`` is ``segment_index``."""
_SHOWN = {name: hint for name, hint in get_type_hints(Segment).items() if name not in INTERNAL}
_segment_fields: dict[str, Any] = {
    "segment_index": int,
    "text": str | None,
    "error": dict[str, str] | None,
    "speaker": (int | None, None),
    **_SHOWN,
    "tokens": list[dict[str, Any]],
}
SegmentAnswer = create_model("SegmentAnswer", **_segment_fields)


def segment_answer(result: Result, speaker: int | None = None) -> dict[str, Any]:
    """Return ``result`` as a ``SegmentAnswer``. ``speaker`` counts from 1; None: unknown, or not
    asked for."""
    return {
        "segment_index": result.seq,
        "text": result.text,
        "error": to_builtins(result.error),
        "speaker": speaker,
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
    model: str = ""
    """Served name; empty: stored by a release without models."""
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
    """The session is running on this gateway, and not all of it is stored."""
    segments: list[SegmentAnswer]  # type: ignore[valid-type]
    chunks: list[ChunkAnswer]


class DeletedAnswer(BaseModel):
    session_id: str
    deleted: bool
    """False: accepted, and not committed yet."""


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
    """Figures of a worker for this gateway, partial results included."""

    worker_id: str
    results: int
    failures: int
    audio_seconds: float
    rtfx: float
    """Inverse real-time factor: seconds of audio per second of work."""
    batch_jobs_mean: float
    batch_jobs_max: int
    seen_s: float
    """Age of its last result, rounded to slots."""


class SeriesAnswer(BaseModel):
    """One value per slot, the current slot last."""

    sessions: list[int]
    """Maximum at a time."""
    queued: list[int]
    """Maximum at a time, in the whole system."""
    results: list[int]
    refused: list[int]
    latency_p50_ms: list[float | None]
    latency_p95_ms: list[float | None]


class RecentAnswer(BaseModel):
    """Activity of this gateway in the last ``window_s`` seconds."""

    window_s: float
    slot_s: float
    results: int
    failures: int
    audio_seconds: float
    latency_ms: PercentilesAnswer
    """From the detected end of an utterance to its result, at the gateway."""
    refused: dict[str, int]
    """Refused connections by code."""
    workers: list[WorkerAnswer]
    series: SeriesAnswer


class StatsAnswer(BaseModel):
    gateway_id: str
    uptime_s: float
    connections: int
    connections_total: int
    """Connections of all gateways, up to a second old."""
    sessions_active: int
    sessions_started: int
    audio_seconds: float
    records_waiting: int
    """Records to be stored. From ``records_waiting_max`` on new sessions are refused."""
    records_waiting_max: int
    queue: QueueStatus
    throughput_rtfx: float
    """Seconds of audio that all workers recognise per second, as the broker measures it."""
    models: list[str]
    served: list[ModelAnswer]
    recent: RecentAnswer
