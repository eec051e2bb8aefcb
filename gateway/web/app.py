"""The gateway's ASGI application: the routes of all resources, and access control around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway.server import Server
from gateway.web.asyncapi import add_asyncapi
from gateway.web.auth import TokenCheck
from gateway.web.auth_tokens import AuthTokens
from gateway.web.description import TAGS, describe
from gateway.web.errors import answer_errors
from gateway.web.export import add_export
from gateway.web.file_jobs import FileJobs, add_file_jobs
from gateway.web.file_transcription import Transcriber
from gateway.web.health import add_health
from gateway.web.history import add_history
from gateway.web.host_check import HostCheck
from gateway.web.jwt_tokens import JwtTokens
from gateway.web.listen import add_listen
from gateway.web.openai import add_transcriptions
from gateway.web.origins import OriginCheck, WebOrigins
from gateway.web.pages import add_pages
from gateway.web.recognition import add_recognition
from gateway.web.sessions import add_sessions
from gateway.web.stats import SystemFigures, add_stats
from gateway.web.tolerance import Tolerance
from gateway.web.unread_bodies import UnreadBodies
from gateway.web.upgrade import add_dialects
from runtime import memory

NO_ORIGINS = WebOrigins("")
"""The gateway's own pages only."""


def create_app(
    server: Server,
    sources: dict[str, str],
    tokens: AuthTokens | None = None,
    host_names: Sequence[str] = (),
    origins: WebOrigins = NO_ORIGINS,
    provider: JwtTokens | None = None,
) -> FastAPI:
    """Make the application. It opens and closes ``server`` with its lifespan.

    ``sources``: where the value of each setting came from. Without ``tokens`` and ``provider``
    requests need no token, but must name an address or one of ``host_names`` (``HostCheck``).
    """
    guarded = tokens is not None or provider is not None
    figures = SystemFigures(server)
    jobs = FileJobs(server)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await server.open()
        memory.settle()
        tasks = [
            asyncio.create_task(each) for each in (_sweep_memory(), figures.publish(), jobs.run())
        ]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()

    app = FastAPI(
        title="Speech recognition pipeline",
        version="0.1.0",
        description="REST beside the WebSocket protocols.",
        openapi_tags=TAGS,
        lifespan=lifespan,
        # FastAPI's own pages load scripts from other hosts; ours is at /docs.
        docs_url=None,
        redoc_url=None,
    )
    app.state.server = server
    answer_errors(app)
    add_dialects(app, server)
    add_export(app)
    add_file_jobs(app, server, jobs)
    add_health(app, server, sources, guarded=guarded)
    add_history(app, server)
    add_sessions(app, server)
    add_stats(app, server, figures)
    _add_files(app, server)
    add_asyncapi(app)
    add_pages(app)
    describe(app, guarded=guarded)
    if guarded:
        app.add_middleware(
            TokenCheck,
            tokens=tokens,
            provider=provider,
            refuse_request=lambda caller: server.quotas.refuse_request(caller),
        )
    else:
        # A page from a rebound name (DNS rebinding) has no token.
        app.add_middleware(HostCheck, names=host_names)
    app.add_middleware(OriginCheck, origins=origins)
    app.add_middleware(Tolerance)
    if origins.names:
        app.add_middleware(CORSMiddleware, **origins.cors())
    app.add_middleware(UnreadBodies)
    return app


def _add_files(app: FastAPI, server: Server) -> None:
    """The APIs that answer with the transcript. They share the limit ``UPLOADS_MAX``."""
    transcriber = Transcriber(server)
    add_transcriptions(app, server, transcriber)
    add_listen(app, server, transcriber)
    add_recognition(app, transcriber)


async def _sweep_memory() -> None:
    # Not in the server, because it concerns the whole process.
    while True:
        await asyncio.sleep(memory.SWEEP_EVERY_S)
        memory.sweep()
