from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from gateway.handshake import READ_AHEAD_MESSAGES, Handshake
from gateway.metrics import REFUSED
from tools.chaos.guests import UPGRADE, ask


@dataclass(frozen=True)
class Served:
    server: uvicorn.Server
    port: int

    def connect(self, path: str) -> Any:
        return websockets.connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, proxy=None)


async def refuse(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("full", 503, {"Retry-After": "5"}))


async def forget(_websocket: WebSocket) -> None:
    """Answers nothing, which is an error indeed."""


@asynccontextmanager
async def serving(**endpoints: Callable[[WebSocket], Awaitable[None]]) -> AsyncIterator[Served]:
    app = Starlette(routes=[WebSocketRoute(f"/{name}", to) for name, to in endpoints.items()])
    config = uvicorn.Config(app, ws=Handshake, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield Served(server, listener.getsockname()[1])
        finally:
            server.should_exit = True
            await running


async def answer_of(path: str) -> tuple[int, str | None]:
    """Status and ``Retry-After``."""
    async with serving(full=refuse, forgets=forget) as served:
        return await asyncio.to_thread(ask, served.port, path, UPGRADE)


async def test_a_refusal_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    assert await answer_of("/full") == (503, "5")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_no_answer_is_one(caplog: pytest.LogCaptureFixture) -> None:
    assert await answer_of("/forgets") == (500, None)
    assert "without completing handshake" in caplog.text


def _refused_as_draining() -> float:
    value: float = REFUSED.labels("draining")._value.get()
    return value


async def test_who_is_not_let_in_yet_when_it_ends_shall_try_again() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()
    before = _refused_as_draining()

    async def slow(_websocket: WebSocket) -> None:
        asked.set()
        await ended.wait()

    async with serving(slow=slow) as served:
        answer = asyncio.create_task(asyncio.to_thread(ask, served.port, "/slow", UPGRADE))
        await asked.wait()
        served.server.should_exit = True
        assert await answer == (503, "1")
        ended.set()
    assert _refused_as_draining() == before + 1


async def test_reading_does_not_stop_while_messages_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stops = 0

    def pause(_transport: object) -> None:
        nonlocal stops
        stops += 1

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async with serving(echo=echo) as served, served.connect("/echo") as client:
        monkeypatch.setattr("asyncio.selector_events._SelectorTransport.pause_reading", pause)
        for number in range(20):
            await client.send(str(number))
            assert await client.recv() == str(number)
    assert stops == 0


async def test_of_messages_that_are_not_taken_few_are_read() -> None:
    """The kernel's buffers fill, and the client waits; then all arrive, in order."""
    count, size = 400, 65_536
    taking = asyncio.Event()
    taken: list[int] = []

    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        await taking.wait()
        taken.extend([int(data[:4]) async for data in websocket.iter_bytes()])

    async def send(client: Any) -> None:
        for number in range(count):
            await client.send(b"%04d".ljust(size, b".") % number)

    async with serving(late=late) as served, served.connect("/late") as client:
        sending = asyncio.create_task(send(client))
        (protocol,) = [
            c for c in served.server.server_state.connections if isinstance(c, Handshake)
        ]
        while not protocol.read_paused:
            await asyncio.sleep(0.01)
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done
        read = protocol.queue.qsize()
        taking.set()
        await sending
    assert taken == list(range(count))
    # Several may come out of one read, of 256 KiB at most.
    assert READ_AHEAD_MESSAGES <= read <= READ_AHEAD_MESSAGES + 4
