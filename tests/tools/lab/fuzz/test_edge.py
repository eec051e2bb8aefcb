"""Malformed messages at a server that fails in the ways a gateway must not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tools.lab.fuzz.edge import INTERNAL_ERROR, EdgeFuzzer


@contextlib.asynccontextmanager
async def server(close_code: int, status: HTTPStatus) -> AsyncIterator[str]:
    """It closes each conversation with ``close_code``, and answers each request ``status``."""

    async def talk(socket: ServerConnection) -> None:
        await socket.close(close_code)

    def answer(socket: ServerConnection, request: Request) -> Response | None:
        upgrade = request.headers.get("Upgrade") == "websocket"
        return None if upgrade else socket.respond(status, "")

    async with serve(talk, "127.0.0.1", 0, process_request=answer, max_size=None) as listening:
        yield f"http://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}"


async def fuzzed(close_code: int, status: HTTPStatus) -> EdgeFuzzer:
    async with server(close_code, status) as url:
        fuzzer = EdgeFuzzer(url, seed=1, first=0, count=100)
        await fuzzer.run()
    return fuzzer


async def test_refusals_and_client_errors_are_expected() -> None:
    fuzzer = await fuzzed(1008, HTTPStatus.SERVICE_UNAVAILABLE)
    assert fuzzer.problems == []
    assert fuzzer.closes[1008] and fuzzer.sent


async def test_internal_errors_are_problems() -> None:
    fuzzer = await fuzzed(INTERNAL_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR)
    assert any("closed with 1011" in problem for problem in fuzzer.problems)
    assert any("HTTP 500" in problem for problem in fuzzer.problems)
