"""Bodies of the REST answers, for the OpenAPI description at ``/docs``."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

from msgspec import to_builtins
from pydantic import BaseModel, ConfigDict, Field, create_model

from gateway.brokers.brokers import BrokerState
from gateway.telemetry.system import GatewayFigures
from wire.messages import Abilities, Result, Segment, Usage

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""ISO 8601, in UTC."""


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


class ProblemAnswer(BaseModel):
    model_config = _example(code="not_found", message="no such session", error="no such session")

    code: str
    message: str
    error: str
    """The message, under the name that the system replaced by this one used."""


def problem(code: str, message: str) -> dict[str, str]:
    """Return the body of an error answer, a ``ProblemAnswer``."""
    return {"code": code, "message": message, "error": message}


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
    """The name by which sessions request the model."""
    model: str
    """Empty without workers."""
    workers: int
    workers_busy: int
    est_wait_ms: int
    abilities: AbilitiesAnswer  # type: ignore[valid-type]


BrokerAnswer = create_model(
    "BrokerAnswer", __doc__=BrokerState.__doc__, **get_type_hints(BrokerState)
)


class HealthStatusAnswer(BaseModel):
    """The answer to a request without a token where tokens are required."""

    status: str
    """As in ``HealthAnswer``."""


class HealthAnswer(BaseModel):
    status: str
    """ready; degraded: without storage or metadata, or a model has no worker; unavailable: no
    worker."""
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
    brokers: list[BrokerAnswer]  # type: ignore[valid-type]
    limits: dict[str, LimitAnswer]


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
    received_at: Timestamp


class WarningAnswer(BaseModel):
    """Something in the request that has no effect."""

    model_config = _example(
        code="unknown_parameter", message="'limt' has no effect; known: limit, cursor"
    )

    code: str
    message: str


class StoredSession(BaseModel):
    session_id: str
    user_id: str
    status: str
    model: str = ""
    """Served name; empty: stored by a release without models."""
    duration: float
    """Seconds of audio."""
    chunk_count: int
    segment_count: int
    created_at: Timestamp
    completed_at: Timestamp | None
    audio_path: str | None = None
    """Always null: no audio is stored."""


class HistoryRecord(StoredSession):
    error: dict[str, str] | None = None
    """Of a session that failed, or has a failed segment."""
    preview: str
    """The beginning of the text, or the part with the first word of ``q``. "…" marks a cut."""
    text: str
    """The whole text, with ``texts=true``, empty while the session runs; else the ``preview``."""


class HistoryAnswer(BaseModel):
    model_config = _example(
        total=128,
        total_max=5_000,
        records=[
            {
                "session_id": "4f6ad1c6-6a0c-4f0a-8c9a-1f1f5f0f3b1d",
                "user_id": "anna",
                "status": "completed",
                "model": "whisper-base",
                "duration": 12.3,
                "chunk_count": 62,
                "segment_count": 3,
                "created_at": "2026-01-01T12:00:00.000Z",
                "completed_at": "2026-01-01T12:00:13.120Z",
                "error": None,
                "preview": "Good morning, everybody.",
                "text": None,
            }
        ],
        next_cursor="MTc2NzI2ODgwMDAwMDAwMCA0ZjZhZDFjNg",
        warnings=[],
    )

    total: int
    """Sessions on all pages; if it is ``total_max``, there may be more."""
    total_max: int
    records: list[HistoryRecord]
    next_cursor: str | None
    """``cursor`` of the next page; null on the last one."""
    warnings: list[WarningAnswer]


class SessionAnswer(StoredSession):
    text: str
    error: dict[str, str] | None = None
    """Of a session that failed, or has a failed segment."""
    live: bool = False
    """The session is running on this gateway, and not all of it is stored."""
    segments: list[SegmentAnswer]  # type: ignore[valid-type]
    id: str
    """The same as ``session_id``. So are ``text`` and ``final_text``."""
    final_text: str
    results: dict[int, str]
    """Text of the segments that end in a chunk, by the index of the chunk."""
    completed: dict[int, bool]
    chunks: list[ChunkAnswer] | None = None
    """Only with ``include=chunks``."""
    warnings: list[WarningAnswer] = []


class Deletion(BaseModel):
    deleted: bool
    """False: accepted, and not committed yet."""
    message: str


class DeletedAnswer(Deletion):
    session_id: str


class SubmittedAnswer(BaseModel):
    """A file that waits to be recognised."""

    task_id: str
    status: str = "queued"
    position: int
    """Files before it on this host."""
    estimated_wait: int
    """Seconds, by the queue of the workers alone."""
    warnings: list[WarningAnswer]


class TaskAnswer(BaseModel):
    task_id: str
    status: str
    """queued, processing, done, or failed."""
    text: str | None = None
    """Known when it is done; after a failure, the text before it."""
    duration: float | None = None
    """Seconds of audio."""
    created_at: str | None = None
    error: str | None = None
    error_code: str | None = None
    audio_url: None = None
    """Always null, like the next: no audio is kept."""
    retry_url: None = None
    progress: None = None
    """Always null: the length of a file is not known before its end."""


class TaskRecord(BaseModel):
    task_id: str
    filename: str = ""
    """Always empty: names of files are not stored."""
    text: str
    created_at: str
    duration: float
    status: str
    audio_url: None = None


class TasksAnswer(BaseModel):
    total: int
    """The number of ``records``."""
    records: list[TaskRecord]
    warnings: list[WarningAnswer]


class TaskDeletedAnswer(Deletion):
    task_id: str


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
    total_tasks: int | None
    """Sessions in the database, like the following up to ``TOTALS_KEPT_S`` old; null: the database
    does not answer."""
    total_duration: float | None
    """Seconds of their audio."""
    avg_rtf: float
    """Real-time factor: 1 / ``throughput_rtfx``; 0: not measured."""
    storage_used: str | None
    """Size of the database, such as "12.34 MB"."""


UsageAnswer = create_model("UsageAnswer", **get_type_hints(Usage))


_figures = get_type_hints(GatewayFigures) | {"usage": UsageAnswer}
_shown_of_gateway: dict[str, Any] = {
    name: hint for name, hint in _figures.items() if name not in ("slots", "workers")
}
GatewayAnswer = create_model("GatewayAnswer", **_shown_of_gateway)


class TotalsAnswer(BaseModel):
    """Sums over ``gateways``."""

    connections: int
    sessions_active: int
    sessions_started: int
    audio_seconds: float
    records_waiting: int


class SystemWorkerAnswer(BaseModel):
    """A worker. Null: not known; results are those of the last 15 minutes, for all gateways."""

    worker_id: str
    model: str
    device: str
    jobs: int
    """It holds these now."""
    credits: int
    draining: bool
    usage: UsageAnswer | None  # type: ignore[valid-type]
    results: int
    failures: int
    rtfx: float | None
    batch_jobs_mean: float | None
    batch_jobs_max: int | None
    seen_s: float | None


class ProcessAnswer(BaseModel):
    kind: str
    usage: UsageAnswer  # type: ignore[valid-type]


class StoreAnswer(BaseModel):
    ready: bool


class StoresAnswer(BaseModel):
    postgresql: StoreAnswer
    redis: StoreAnswer
    answer_ms: float
    """Until both had answered this gateway."""


class SystemAnswer(BaseModel):
    answered_by: str
    complete: bool
    """All gateways that the brokers know are in ``gateways``."""
    gateways_registered: int | None
    """By the broker; null without it."""
    gateways: list[GatewayAnswer]  # type: ignore[valid-type]
    totals: TotalsAnswer
    queue: QueueStatus | None
    """Null without the broker."""
    throughput_rtfx: float | None
    served: list[ModelAnswer]
    brokers: list[BrokerAnswer]  # type: ignore[valid-type]
    workers: list[SystemWorkerAnswer] | None
    """Null if no broker has published them in Redis."""
    processes: list[ProcessAnswer]
    """Brokers and persistence."""
    stores: StoresAnswer
    errors: dict[str, int]
    """Failed utterances and refused connections of the last 15 minutes, by code."""
    recent: RecentAnswer
