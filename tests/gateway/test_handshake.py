from __future__ import annotations

import asyncio
import logging
import socket

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from gateway.handshake import Handshake
from tools.chaos.guests import UPGRADE, ask


async def refuse(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("full", 503, {"Retry-After": "5"}))


async def forget(_websocket: WebSocket) -> None:
    """Answers nothing, which is an error indeed."""


async def answer_of(path: str) -> tuple[int, str | None]:
    """Status and ``Retry-After``."""
    app = Starlette(routes=[WebSocketRoute("/full", refuse), WebSocketRoute("/forgets", forget)])
    config = uvicorn.Config(app, ws=Handshake, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        try:
            return await asyncio.to_thread(ask, listener.getsockname()[1], path, UPGRADE)
        finally:
            server.should_exit = True
            await serving


async def test_a_refusal_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    assert await answer_of("/full") == (503, "5")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_no_answer_is_one(caplog: pytest.LogCaptureFixture) -> None:
    assert await answer_of("/forgets") == (500, None)
    assert "without completing handshake" in caplog.text
