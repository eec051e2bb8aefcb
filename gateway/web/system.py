"""The whole system over REST: every gateway, the broker, persistence, workers, and the stores.

Gateways, brokers and persistence publish their figures in Redis (``runtime/process_report.py``), so
any gateway can report all of them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from fastapi import FastAPI
from msgspec import to_builtins

from gateway.server import Server
from gateway.telemetry import activity as a
from gateway.telemetry import system as s
from gateway.web.description import SYSTEM
from gateway.web.parameters import WARNS_OF_UNKNOWN
from gateway.web.schemas import GatewayAnswer, SystemAnswer, TotalsAnswer, model_answer
from gateway.web.stats import own_figures, queue_body, recent_body, recent_worker
from runtime.usage import UsageMeter
from wire.messages import Usage

PUBLISH_INTERVAL_S = 2.0


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
            "served": [model_answer(model) for model in server.models.all],
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


def add_system(app: FastAPI, figures: SystemFigures) -> None:
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
