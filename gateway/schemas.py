"""Bodies of the REST answers, as the OpenAPI description at ``/docs`` shows them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ProblemAnswer(BaseModel):
    code: str
    message: str


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


class SegmentAnswer(BaseModel):
    segment_index: int
    start_ms: int
    end_ms: int
    text: str | None
    tokens: list[dict[str, Any]]
    error: dict[str, str] | None
    worker_id: str
    attempt: int
    queue_ms: int
    infer_ms: int


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
    segments: list[SegmentAnswer]
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


class StatsAnswer(BaseModel):
    gateway_id: str
    uptime_s: float
    connections: int
    sessions_active: int
    sessions_started: int
    audio_seconds: float
    records_waiting: int
    queue: QueueStatus
