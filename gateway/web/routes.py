"""HTTP and WebSocket routes. Thin: what they say is decided by the server, the session and
reads."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

import prometheus_client
from fastapi import FastAPI, Path, Query, Request, Response, WebSocket
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from gateway.admission.policy import Refusal
from gateway.dialects import native
from gateway.dialects.dialect import Dialect
from gateway.dialects.funasr import Funasr
from gateway.dialects.vosk import Vosk
from gateway.server import Server
from gateway.session.resume import text_of
from gateway.telemetry import metrics
from gateway.web.auth import Access, describe_access
from gateway.web.auth_tokens import AuthTokens
from gateway.web.live_session import live_session
from gateway.web.openai import add_transcriptions
from gateway.web.pages import add_pages
from gateway.web.schemas import (
    AdmissionAnswer,
    DeletedAnswer,
    HealthAnswer,
    HistoryAnswer,
    ProblemAnswer,
    QueueStatus,
    SessionAnswer,
    StatsAnswer,
)
from gateway.web.stats import queue_body, stats_body
from gateway.web.transcript_files import TranscriptFormat, transcript_response
from gateway.web.websocket import Connection
from persistence.reads import StoreUnavailable
from runtime import memory

HISTORY_LIMIT_MAX = 1_000
SUBPROTOCOLS = ("binary", "asr")
"""Taken when offered; they mean nothing more. FunASR's clients ask for the first. The second is for
who shows a token as another one (``gateway.web.auth``): browsers want one of their offers taken."""
_NOT_FOUND = {"code": "not_found", "message": "no such session"}

SessionId = Annotated[
    str, Path(pattern=f"^{native.SESSION_ID.pattern}$", description="The client's session id")
]


async def _sweep_on() -> None:
    # Here and not in the server, for it is the process that is swept, not what is in it.
    while True:
        await asyncio.sleep(memory.SWEEP_EVERY_S)
        memory.sweep()


def create_app(
    server: Server, sources: dict[str, str], tokens: AuthTokens | None = None
) -> FastAPI:
    """The gateway's application. ``sources`` tells where each setting came from; without ``tokens``
    it is open to whoever reaches it."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await server.open()
        memory.settle()
        sweeping = asyncio.create_task(_sweep_on())
        yield
        sweeping.cancel()
        await server.close()

    app = FastAPI(
        title="Speech recognition pipeline",
        version="0.1.0",
        description="REST beside the WebSocket protocol of /ws/asr.",
        lifespan=lifespan,
        # FastAPI's own pages load their scripts from elsewhere; ours is at /docs.
        docs_url=None,
        redoc_url=None,
    )
    app.state.server = server
    _add_websocket(app, server)
    _add_health(app, server, sources)
    _add_sessions(app, server)
    _add_queue(app, server)
    add_transcriptions(app, server)
    add_pages(app)
    describe_access(app, needed=tokens is not None)
    if tokens is not None:
        app.add_middleware(Access, tokens=tokens)
    return app


# ---------------------------------------------------------------------------------------- WebSocket


def _add_websocket(app: FastAPI, server: Server) -> None:
    def new_id() -> str:
        return str(uuid.uuid4())

    @app.websocket("/ws/asr")
    async def recognise(websocket: WebSocket) -> None:
        await _serve(websocket, server, native.Native())

    @app.websocket("/")
    async def recognise_funasr(websocket: WebSocket) -> None:
        await _serve(websocket, server, Funasr(new_id))

    @app.websocket("/vosk")
    async def recognise_vosk(websocket: WebSocket) -> None:
        await _serve(websocket, server, Vosk(new_id))


async def _serve(websocket: WebSocket, server: Server, dialect: Dialect) -> None:
    if not _origin_allowed(websocket, server.settings.allowed_origins):
        metrics.REFUSED.labels("origin_refused").inc()
        body = {"code": "origin_refused", "message": "this web origin may not connect"}
        await websocket.send_denial_response(JSONResponse(body, 403))
        return
    refusal = await server.gate.enter(websocket.query_params.get("resume") or None)
    if refusal is not None:
        await websocket.send_denial_response(_refused(refusal))
        return
    try:
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept(next((name for name in SUBPROTOCOLS if name in offered), None))
        await Connection(websocket, dialect, server).run()
    finally:
        server.gate.leave()


def _origin_allowed(websocket: WebSocket, allowed: str) -> bool:
    """Browsers send Origin and no page of another site may use our socket in a visitor's name;
    other clients send none."""
    origin = websocket.headers.get("origin")
    if origin is None:
        return True
    names = {name.strip() for name in allowed.split(",") if name.strip()}
    if "*" in names or origin in names:
        return True
    try:
        return urlsplit(origin).netloc == websocket.headers.get("host")
    except ValueError:
        return False


def _refused(refusal: Refusal) -> JSONResponse:
    return JSONResponse(refusal.body(), 503, {"Retry-After": str(refusal.retry_after_s)})


# ------------------------------------------------------------------------------------------- health


def _add_health(app: FastAPI, server: Server, sources: dict[str, str]) -> None:
    @app.get("/api/v1/health", response_model=HealthAnswer, responses={503: {}})
    async def health(response: Response) -> dict[str, Any]:
        """Is speech recognised here? 503 when no worker is ready."""
        now_s = time.monotonic()
        refusal = server.admission.readiness(now_s)
        load = server.admission.load(now_s)
        db_ready = await server.reader.ping()
        if refusal is not None:
            response.status_code = 503
        degraded = not (db_ready and server.redis_metadata.ready)
        settings = server.settings
        return {
            "status": "unavailable" if refusal else "degraded" if degraded else "ok",
            "reason": refusal.message if refusal else None,
            "funasr_ready": load is not None and load.workers > 0,
            "redis_ready": server.redis_metadata.ready,
            "db_ready": db_ready,
            "workers_ready": load.workers if load is not None else 0,
            "models": list(load.models) if load is not None else [],
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

    @app.get(
        "/api/v1/admission",
        response_model=AdmissionAnswer,
        responses={503: {"model": ProblemAnswer}},
    )
    async def admission(resume: Annotated[str | None, Query(max_length=200)] = None) -> Any:
        """Would a WebSocket be let in now? For browsers, which do not show the answer to a
        refused upgrade: the same 503 with ``Retry-After``. ``resume`` as in its address."""
        refusal = await server.gate.would_refuse(resume or None)
        return _refused(refusal) if refusal is not None else {"admitted": True}

    @app.get("/livez", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    async def ready() -> JSONResponse:
        refusal = server.admission.readiness(time.monotonic())
        if refusal is not None:
            return _refused(refusal)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(
            prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST
        )


# ----------------------------------------------------------------------------------------- sessions


def _add_sessions(app: FastAPI, server: Server) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.BAD_REQUESTS.labels("invalid").inc()
        return await request_validation_exception_handler(request, error)

    problems: dict[int | str, dict[str, Any]] = {
        404: {"model": ProblemAnswer},
        503: {"model": ProblemAnswer},
    }

    @app.exception_handler(StoreUnavailable)
    async def store_unavailable(_request: Request, _error: Exception) -> JSONResponse:
        body = {"code": "store_unavailable", "message": "the database does not answer"}
        return JSONResponse(body, 503, {"Retry-After": "2"})

    @app.get("/api/v1/history", response_model=HistoryAnswer, responses={503: problems[503]})
    async def history(
        limit: Annotated[int, Query(ge=1, le=HISTORY_LIMIT_MAX)] = 50,
    ) -> dict[str, Any]:
        """The latest sessions, newest first."""
        total, records = await server.reader.history(limit)
        return {"total": total, "records": records}

    @app.get("/api/v1/session/{session_id}", response_model=SessionAnswer, responses=problems)
    async def session(session_id: SessionId, format: TranscriptFormat = "json") -> Any:
        """One session, live or stored, with its segments and chunks; or only its transcript as
        text, SRT or WebVTT."""
        found = await find(session_id)
        if found is None:
            return JSONResponse(_NOT_FOUND, 404)
        return found if format == "json" else transcript_response(found, format)

    async def find(session_id: str) -> dict[str, Any] | None:
        host = server.sessions.get(session_id)
        try:
            stored = await server.reader.session(session_id)
        except StoreUnavailable:
            if host is None:
                raise
            stored = None  # A live session is known here; only its chunks' details are not.
        if host is not None:
            return live_session(host.session, stored)
        return stored and {**stored, "text": text_of(stored)}

    @app.delete(
        "/api/v1/session/{session_id}",
        response_model=DeletedAnswer,
        responses={**problems, 202: {"model": DeletedAnswer}},
    )
    async def delete(session_id: SessionId, response: Response) -> Any:
        """Delete a session for good: no late result brings it back. 202: accepted, and done as
        soon as the database is back."""
        if not server.is_here(session_id):
            try:
                known = await server.reader.status(session_id) not in (None, "deleted")
            except StoreUnavailable:
                if server.storage_backlog_full:
                    raise  # One more record to keep, and perhaps of an id that nobody has.
                known = True
            if not known:
                return JSONResponse(_NOT_FOUND, 404)
        committed = await server.delete(session_id)
        if not committed:
            response.status_code = 202
        return {"session_id": session_id, "deleted": committed}


# -------------------------------------------------------------------------------------------- queue


def _add_queue(app: FastAPI, server: Server) -> None:
    @app.get("/api/v1/asr/queue/status", response_model=QueueStatus)
    async def queue_status() -> dict[str, Any]:
        """The broker's queue, as of its last report."""
        return queue_body(server.admission.load(time.monotonic()))

    @app.get("/api/v1/stats", response_model=StatsAnswer)
    async def stats() -> dict[str, Any]:
        """Counters of this gateway since its start, what it saw in the last quarter of an hour,
        and the broker's queue."""
        return stats_body(server, time.monotonic())
