"""A connection whose session fails by our own bug. Everything else about connections is tested
with real clients in tests/integration."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from starlette.websockets import WebSocket, WebSocketState

from gateway import events as e
from gateway.connection import Connection, Services
from gateway.hub import _feed
from gateway.life_cycle import SessionLimits, State
from gateway.segmenter import SegmenterConfig
from gateway.session import Session
from wire.messages import Cancel, Job, Record, Result


class ScriptedSocket:
    """Receives what the test says; keeps what is sent."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.application_state = WebSocketState.CONNECTED

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    async def send_text(self, text: str) -> None:
        self.sent.append(text)

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self.application_state = WebSocketState.DISCONNECTED
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": code})


class NoServices:
    """Takes everything, answers nothing: no audio is sent in these tests."""

    chunk_bytes_max = 1 << 20

    def __init__(self) -> None:
        self.released = 0

    def submit_job(self, job: Job) -> None: ...
    def submit_record(self, record: Record) -> None: ...
    def keep_result(self, result: Result) -> None: ...
    def cancel(self, cancel: Cancel) -> None: ...
    def new_audio(self, start: e.Start) -> object:
        class Audio:
            async def finish(self) -> bytes:
                return b""

            async def close(self) -> None: ...

        return Audio()

    async def claim(self, connection: Connection, start: e.Start) -> None: ...
    def release(self, connection: Connection) -> None:
        self.released += 1


def make() -> tuple[ScriptedSocket, NoServices, Connection]:
    socket, services = ScriptedSocket(), NoServices()
    session = Session(
        SessionLimits(),
        SegmenterConfig(),
        resume_token="t",
        client="",
        wall_ms=lambda: 0,
    )
    connection = Connection(cast(WebSocket, socket), session, cast(Services, services))
    return socket, services, connection


async def test_a_bug_in_one_session_closes_it_with_1011(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket, services, connection = make()
    before = REGISTRY.get_sample_value("asr_gateway_failed_sessions_total") or 0.0
    socket.incoming.put_nowait(
        {"type": "websocket.receive", "text": '{"action":"start","session_id":"a"}'}
    )
    running = asyncio.create_task(connection.run())
    while not socket.sent:
        await asyncio.sleep(0)
    assert json.loads(socket.sent[0])["status"] == "session_started"

    def broken(_event: e.Event, _now_s: float) -> list[e.Action]:
        raise AssertionError("a bug")

    monkeypatch.setattr(connection.session, "handle", broken)
    _feed(connection, e.Tick())
    async with asyncio.timeout(5):
        await running
    assert socket.closed is not None and socket.closed[0] == 1011
    assert services.released == 1
    assert REGISTRY.get_sample_value("asr_gateway_failed_sessions_total") == before + 1


async def test_a_chunk_over_the_limit_closes_with_1009() -> None:
    socket, services, connection = make()
    for message in (
        {"text": '{"action":"start","session_id":"a"}'},
        {"bytes": b"\0" * ((1 << 20) + 1)},
    ):
        socket.incoming.put_nowait({"type": "websocket.receive", **message})
    running = asyncio.create_task(connection.run())
    async with asyncio.timeout(5):
        while socket.closed is None:
            await asyncio.sleep(0)
    assert socket.closed[0] == 1009
    async with asyncio.timeout(5):
        await running
    assert connection.session.state is State.DONE
    assert services.released == 1


async def test_a_client_that_does_not_read_is_closed_with_1013(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.connection.SEND_TIMEOUT_S", 0.05)
    socket, services, connection = make()
    before = REGISTRY.get_sample_value("asr_gateway_slow_clients_total") or 0.0

    async def stuck(_text: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(socket, "send_text", stuck)
    socket.incoming.put_nowait(
        {"type": "websocket.receive", "text": '{"action":"start","session_id":"a"}'}
    )
    async with asyncio.timeout(5):
        await connection.run()
    assert socket.closed is not None and socket.closed[0] == 1013
    assert REGISTRY.get_sample_value("asr_gateway_slow_clients_total") == before + 1
    assert services.released == 1
