"""A client of FunASR's protocol: when its last text comes, and what a refusal counts as."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tools.lab.bench import real_size

DELAY_S = 0.2


async def recognise(socket: ServerConnection) -> None:
    """Answer as the gateway does, some time after the end of the speech."""
    assert json.loads(await socket.recv())["mode"] == "offline"
    received = 0
    async for message in socket:
        if isinstance(message, bytes):
            received += len(message)
        else:
            break
    assert received == len(real_size.speech(0))
    await socket.send(json.dumps({"mode": "offline", "text": "one", "is_final": False}))
    await asyncio.sleep(DELAY_S)
    await socket.send(json.dumps({"mode": "offline", "text": "", "is_final": True}))


def refuse_second(socket: ServerConnection, request: Request) -> Response | None:
    if socket.server.connections:
        return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "full")
    return None


async def test_the_last_text_counts_and_a_refused_client_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(real_size, "SPEECH_S", 1.5)
    monkeypatch.setattr(real_size, "RAMP_S", 0.6)
    async with serve(recognise, "127.0.0.1", 0, process_request=refuse_second) as server:
        port = server.sockets[0].getsockname()[1]
        served, refused = await real_size.load(f"ws://127.0.0.1:{port}/", "offline", 2)
    assert refused is None
    assert served is not None and served >= 1000 * DELAY_S
