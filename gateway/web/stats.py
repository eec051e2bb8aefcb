"""Statistics over REST: the broker's queue, and the recent activity of this gateway."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import prometheus_client
from fastapi import FastAPI

from gateway.server import Server
from gateway.telemetry import activity as a
from gateway.web.description import SYSTEM
from gateway.web.parameters import WARNS_OF_UNKNOWN
from gateway.web.schemas import QueueStatus, StatsAnswer, model_answer
from wire.messages import Load


def add_stats(app: FastAPI, server: Server) -> None:
    @app.get(
        "/api/v1/asr/queue/status",
        tags=[SYSTEM],
        response_model=QueueStatus,
        dependencies=[WARNS_OF_UNKNOWN],
    )
    async def queue_status() -> dict[str, Any]:
        """The queue of the broker, as last reported."""
        return queue_body(server.admission.load(time.monotonic()))

    @app.get(
        "/api/v1/stats", tags=[SYSTEM], response_model=StatsAnswer, dependencies=[WARNS_OF_UNKNOWN]
    )
    async def stats() -> dict[str, Any]:
        """Counters of this gateway since its start, its activity in the last 15 minutes, and the
        broker's queue."""
        totals = await server.reader.totals()
        return stats_body(server, time.monotonic()) | totals_body(totals)


def queue_body(load: Load | None) -> dict[str, Any]:
    if load is None:
        return dict.fromkeys(
            ("queued", "processing", "failed", "workers", "workers_busy", "est_wait_ms"), 0
        ) | {"broker_ready": False}
    return {
        "broker_ready": True,
        "queued": load.queued,
        "processing": load.in_flight,
        "failed": load.failed_total,
        "workers": load.workers,
        "workers_busy": load.workers_busy,
        "est_wait_ms": load.est_wait_ms,
    }


def own_figures(server: Server) -> dict[str, Any]:
    """Return the figures of this gateway that ``/api/v1/stats`` and ``/api/v1/system`` share."""
    value = prometheus_client.REGISTRY.get_sample_value
    return {
        "gateway_id": server.gateway_id,
        "connections": server.gate.connections,
        "sessions_active": len(server.sessions),
        "sessions_started": int(value("asr_gateway_sessions_total", {"event": "started"}) or 0),
        "audio_seconds": round(value("asr_gateway_audio_seconds_total") or 0.0, 3),
        "records_waiting": len(server.outbox),
        "records_waiting_max": server.settings.outbox_records_max,
    }


def stats_body(server: Server, now_s: float) -> dict[str, Any]:
    slots = server.activity.slots(now_s)
    load = server.admission.load(now_s)
    return {
        **own_figures(server),
        "uptime_s": round(now_s - server.started_s, 1),
        "connections_total": server.redis_metadata.known_connections(server.gate.connections),
        "queue": queue_body(load),
        "throughput_rtfx": round(load.throughput_rtfx, 1) if load is not None else 0.0,
        "avg_rtf": round(1 / load.throughput_rtfx, 4) if load and load.throughput_rtfx else 0.0,
        "models": list(load.models) if load is not None else [],
        "served": [model_answer(model) for model in server.models.all],
        "recent": recent_body(slots, a.workers_of(slots)),
    }


def totals_body(totals: dict[str, Any] | None) -> dict[str, Any]:
    """Return figures over all sessions; None: unknown."""
    if totals is None:
        return dict.fromkeys(("total_tasks", "total_duration", "storage_used"))
    return {
        "total_tasks": totals["sessions"],
        "total_duration": totals["audio_s"],
        "storage_used": f"{totals['database_bytes'] / (1 << 20):.2f} MB",
    }


def recent_worker(figures: a.WorkerFigures) -> dict[str, Any]:
    return {
        "results": figures.results,
        "failures": figures.failures,
        "rtfx": round(figures.rtfx, 1),
        "batch_jobs_mean": round(figures.batch_jobs_mean, 1),
        "batch_jobs_max": figures.batch_jobs_max,
        "seen_s": figures.seen_s,
    }


def recent_body(slots: list[a.Slot], workers: dict[str, a.WorkerFigures]) -> dict[str, Any]:
    """Return ``slots`` as the dashboard shows them: totals, figures by worker, and series."""
    refused: Counter[str] = Counter()
    for slot in slots:
        refused.update(slot.refused)
    return {
        "window_s": len(slots) * a.SLOT_S,
        "slot_s": a.SLOT_S,
        "results": sum(slot.results for slot in slots),
        "failures": sum(slot.failures for slot in slots),
        "audio_seconds": round(sum(slot.audio_ms for slot in slots) / 1000, 1),
        "latency_ms": {
            "p50": a.percentile_ms(slots, 0.50),
            "p95": a.percentile_ms(slots, 0.95),
            "p99": a.percentile_ms(slots, 0.99),
        },
        "refused": dict(refused),
        "workers": [
            {
                "worker_id": worker_id,
                "audio_seconds": round(figures.audio_ms / 1000, 1),
                **recent_worker(figures),
            }
            for worker_id, figures in sorted(workers.items())
        ],
        "series": {
            "sessions": [slot.sessions_max for slot in slots],
            "queued": [slot.queued_max for slot in slots],
            "results": [slot.results for slot in slots],
            "refused": [slot.refused.total() for slot in slots],
            "latency_p50_ms": [a.percentile_ms([slot], 0.50) for slot in slots],
            "latency_p95_ms": [a.percentile_ms([slot], 0.95) for slot in slots],
        },
    }
