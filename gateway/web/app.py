"""The gateway's ASGI application: the routes of all resources, and access control around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from gateway.server import Server
from gateway.telemetry import metrics
from gateway.web.auth import TokenCheck, describe_access
from gateway.web.auth_tokens import AuthTokens
from gateway.web.health import add_health
from gateway.web.openai import add_transcriptions
from gateway.web.pages import add_pages
from gateway.web.sessions import add_sessions
from gateway.web.stats import add_stats
from gateway.web.upgrade import add_dialects
from persistence.reads import StoreUnavailable
from runtime import memory

STORE_RETRY_AFTER_S = 2


def create_app(
    server: Server, sources: dict[str, str], tokens: AuthTokens | None = None
) -> FastAPI:
    """Make the application. It opens and closes ``server`` with its lifespan.

    ``sources`` maps each setting to where its value came from. Without ``tokens`` every request is
    allowed.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await server.open()
        memory.settle()
        sweeping = asyncio.create_task(_sweep_memory())
        yield
        sweeping.cancel()
        await server.close()

    app = FastAPI(
        title="Speech recognition pipeline",
        version="0.1.0",
        description="REST beside the WebSocket protocol of /ws/asr.",
        lifespan=lifespan,
        # FastAPI's own pages load scripts from other hosts; ours is at /docs.
        docs_url=None,
        redoc_url=None,
    )
    app.state.server = server
    _answer_errors(app)
    add_dialects(app, server)
    add_health(app, server, sources)
    add_sessions(app, server)
    add_stats(app, server)
    add_transcriptions(app, server)
    add_pages(app)
    describe_access(app, required=tokens is not None)
    if tokens is not None:
        app.add_middleware(TokenCheck, tokens=tokens)
    return app


async def _sweep_memory() -> None:
    # Here and not in the server, because it concerns the process.
    while True:
        await asyncio.sleep(memory.SWEEP_EVERY_S)
        memory.sweep()


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.BAD_REQUESTS.labels("invalid").inc()
        return await request_validation_exception_handler(request, error)

    @app.exception_handler(StoreUnavailable)
    async def store_unavailable(_request: Request, _error: Exception) -> JSONResponse:
        body = {"code": "store_unavailable", "message": "the database does not answer"}
        return JSONResponse(body, 503, {"Retry-After": str(STORE_RETRY_AFTER_S)})
