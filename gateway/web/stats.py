"""Figures over REST: the broker's queue, this gateway, and the whole system.

Gateways, brokers and persistence publish their figures in Redis (``runtime/process_report.py``), so
any gateway can report all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any, Final

import msgspec
import prometheus_client
from fastapi import FastAPI
from msgspec import to_builtins

from gateway.server import Server
from gateway.telemetry import activity as a
from gateway.telemetry import system as s
from gateway.web.description import SYSTEM
from gateway.web.parameters import WARNS_OF_UNKNOWN
from gateway.web.schemas import GatewayAnswer, QueueStatus, StatsAnswer, SystemAnswer, TotalsAnswer
from runtime.usage import UsageMeter
from wire.messages import Load, Usage

PUBLISH_INTERVAL_S = 2.0


def add_stats(app: FastAPI, server: Server, figures: SystemFigures) -> None:
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

    @app.get(
        "/api/v1/system",
        tags=[SYSTEM],
        response_model=SystemAnswer,
        dependencies=[WARNS_OF_UNKNOWN],
    )
    async def system() -> dict[str, Any]:
        """The whole system: all gateways, up to two seconds old, and their sums; the broker's
        queue; models, workers, processes and stores. Unknown values are null; ``complete`` is false
        if gateways are missing."""
        return await figures.body()


_QUEUE: Final = {
    "queued": "queued",
    "processing": "in_flight",
    "failed": "failed_total",
    "workers": "workers",
    "workers_busy": "workers_busy",
    "est_wait_ms": "est_wait_ms",
}
"""Fields of ``Load`` by those of ``QueueStatus``."""


def queue_body(load: Load | None) -> dict[str, Any]:
    found = {shown: getattr(load, name, 0) for shown, name in _QUEUE.items()}
    return {"broker_ready": load is not None, **found}


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
        "served": to_builtins(server.models.all),
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


# --------------------------------------------------------------------------------- the whole system


class SystemFigures:
    """The figures of this gateway, and of all gateways."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._meter = UsageMeter()
        self._usage = Usage(**self._meter.read())

    async def publish(self) -> None:
        """Publish the figures of this gateway until the task is cancelled."""
        redis = self._server.redis_metadata
        while True:
            self._usage = Usage(**self._meter.read())
            await redis.publish_figures(msgspec.json.encode(self._own()).decode())
            await asyncio.sleep(PUBLISH_INTERVAL_S)

    def _own(self) -> s.GatewayFigures:
        slots = self._server.activity.slots(time.monotonic())
        return s.GatewayFigures(
            **own_figures(self._server),
            usage=self._usage,
            slots=s.slot_figures(slots),
            workers=a.workers_of(slots),
        )

    async def body(self) -> dict[str, Any]:
        """Return a ``SystemAnswer``."""
        server, own = self._server, self._own()
        began_s = time.monotonic()
        texts, db_ready = await asyncio.gather(
            server.redis_metadata.all_figures(), server.reader.ping()
        )
        load = server.admission.load(time.monotonic())
        figures = s.decoded(texts or ())
        by_id = {one.gateway_id: one for one in figures if isinstance(one, s.GatewayFigures)}
        gateways = [one for _, one in sorted({**by_id, own.gateway_id: own}.items())]
        registered = load.gateways if load is not None else None
        slots = s.summed_slots(gateways)
        recent_workers = a.summed_workers(one.workers for one in gateways)
        return {
            "answered_by": own.gateway_id,
            "complete": bool(registered and texts is not None and len(gateways) >= registered),
            "gateways_registered": registered,
            "gateways": [
                {name: to_builtins(getattr(one, name)) for name in GatewayAnswer.model_fields}
                for one in gateways
            ],
            "totals": {
                name: round(sum(getattr(one, name) for one in gateways), 3)
                for name in TotalsAnswer.model_fields
            },
            "queue": queue_body(load) if load is not None else None,
            "throughput_rtfx": round(load.throughput_rtfx, 1) if load is not None else None,
            "served": to_builtins(server.models.all),
            "brokers": to_builtins(server.brokers.states()),
            "workers": _workers_body(figures, recent_workers),
            "processes": [
                {"kind": one.__struct_config__.tag, "usage": to_builtins(one.usage)}
                for one in figures
                if not isinstance(one, s.GatewayFigures)
            ],
            "stores": {
                "postgresql": {"ready": db_ready},
                "redis": {"ready": texts is not None},
                "answer_ms": round((time.monotonic() - began_s) * 1000, 1),
            },
            "errors": s.errors_of(slots),
            "recent": recent_body(slots, recent_workers),
        }


def _workers_body(
    figures: list[s.Figures], recent: dict[str, a.WorkerFigures]
) -> list[dict[str, Any]] | None:
    brokers = [one for one in figures if isinstance(one, s.BrokerFigures)]
    unknown = dict.fromkeys(("rtfx", "batch_jobs_mean", "batch_jobs_max", "seen_s"))
    idle = {"results": 0, "failures": 0, **unknown}
    bodies = [
        to_builtins(worker)
        | (recent_worker(recent[worker.worker_id]) if worker.worker_id in recent else idle)
        for worker in s.summed_states(brokers)
    ]
    return bodies if brokers else None
