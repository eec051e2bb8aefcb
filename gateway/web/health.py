"""Health, liveness, readiness, and the metrics of the process."""

from __future__ import annotations

import time
from typing import Any

import prometheus_client
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from gateway.server import Server
from gateway.web.schemas import HealthAnswer, model_answer
from gateway.web.upgrade import refused


def add_health(app: FastAPI, server: Server, sources: dict[str, str]) -> None:
    @app.get("/api/v1/health", response_model=HealthAnswer, responses={503: {}})
    async def health(response: Response) -> dict[str, Any]:
        """Whether this gateway can recognise speech, and by which models. 503 if no worker is
        ready."""
        now_s = time.monotonic()
        refusal = server.admission.readiness(now_s)
        load = server.admission.load(now_s)
        db_ready = await server.reader.ping()
        if refusal is not None:
            response.status_code = 503
        served = server.models.all
        idle = [model.name for model in served if not model.workers]
        degraded = not (db_ready and server.redis_metadata.ready) or bool(idle)
        without_workers = f"no worker serves {', '.join(idle)}" if idle else None
        reason = without_workers if refusal is None else refusal.message
        settings = server.settings
        return {
            "status": "unavailable" if refusal else "degraded" if degraded else "ok",
            "reason": reason,
            "funasr_ready": load is not None and load.workers > 0,
            "redis_ready": server.redis_metadata.ready,
            "db_ready": db_ready,
            "workers_ready": load.workers if load is not None else 0,
            "models": list(load.models) if load is not None else [],
            "served": [model_answer(model) for model in served],
            "connections": server.gate.connections,
            "limits": {
                "max_connections": {
                    "value": settings.max_connections,
                    "source": sources.get("max_connections", "default"),
                },
                "est_wait_ms_max": {
                    "value": settings.est_wait_ms_max,
                    "source": sources.get("est_wait_ms_max", "default"),
                },
            },
        }

    @app.get("/livez", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    async def ready() -> JSONResponse:
        refusal = server.admission.readiness(time.monotonic())
        if refusal is not None:
            return refused(refusal)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(
            prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST
        )
