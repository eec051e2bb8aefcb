"""Health, liveness, readiness, and the metrics of the process."""

from __future__ import annotations

import time
from typing import Any

import prometheus_client
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from msgspec import to_builtins

from gateway.server import Server
from gateway.web.caller import has_token
from gateway.web.description import SYSTEM
from gateway.web.errors import refused
from gateway.web.parameters import WARNS_OF_UNKNOWN
from gateway.web.schemas import HealthAnswer, HealthStatusAnswer

LIMITS = ("max_connections", "est_wait_ms_max")
"""Settings of admission that the answer names."""


def add_health(
    app: FastAPI, server: Server, sources: dict[str, str], *, guarded: bool = False
) -> None:
    """``guarded``: requests without a token get no details."""

    @app.get(
        "/api/v1/health",
        tags=[SYSTEM],
        response_model=HealthAnswer | HealthStatusAnswer,
        responses={503: {"model": HealthAnswer | HealthStatusAnswer}},
        dependencies=[WARNS_OF_UNKNOWN],
    )
    async def health(request: Request, response: Response) -> dict[str, Any]:
        """Whether this gateway can recognise speech, and by which models. 503 if no worker is
        ready. Where tokens are required, a request without one gets the status only."""
        now_s = time.monotonic()
        refusal = server.admission.readiness(now_s)
        load = server.admission.load(now_s)
        db_ready = await server.reader.ping()
        if refusal is not None:
            response.status_code = 503
        served = server.models.all
        default = server.settings.asr_default_model
        idle = [
            f"{model.name} (ASR_DEFAULT_MODEL)" if model.name == default else model.name
            for model in served
            if not model.workers
        ]
        degraded = not (db_ready and server.redis_metadata.ready) or bool(idle)
        without_workers = f"no worker serves {', '.join(idle)}" if idle else None
        reason = without_workers if refusal is None else refusal.message
        status = "unavailable" if refusal else "degraded" if degraded else "ready"
        if guarded and not has_token(request):
            return {"status": status}
        return {
            "status": status,
            "reason": reason,
            "funasr_ready": load is not None and load.workers > 0,
            "redis_ready": server.redis_metadata.ready,
            "db_ready": db_ready,
            "workers_ready": load.workers if load is not None else 0,
            "models": list(load.models) if load is not None else [],
            "served": to_builtins(served),
            "connections": server.gate.connections,
            "brokers": to_builtins(server.brokers.states()),
            "limits": {name: _limit(server, sources, name) for name in LIMITS},
        }

    @app.get("/health", include_in_schema=False)
    async def brief_health() -> JSONResponse:
        """For clients of FunASR's OpenAI server."""
        healthy = server.admission.readiness(time.monotonic()) is None
        return JSONResponse({"status": "ok" if healthy else "unavailable"}, 200 if healthy else 503)

    @app.get("/livez", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    async def ready() -> JSONResponse:
        refusal = server.admission.readiness(time.monotonic())
        if refusal is not None:
            return refused("/readyz", refusal)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(
            prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST
        )


def _limit(server: Server, sources: dict[str, str], name: str) -> dict[str, Any]:
    return {"value": getattr(server.settings, name), "source": sources.get(name, "default")}
