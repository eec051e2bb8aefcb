"""Deadlines and sizes of heads are tested with a running gateway (test_bad_input.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.telemetry.metrics import LATE_HEADS
from gateway.web.http_heads import READ_BYTES_MAX, HeadDeadline


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("no request was sent")


class Reads(HeadDeadline):
    """Notes how much comes at once."""

    def __init__(self, sizes: list[int], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sizes = sizes

    def data_received(self, data: bytes) -> None:
        self._sizes.append(len(data))


@asynccontextmanager
async def connected(
    app: Any, protocol: Callable[..., asyncio.Protocol]
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config, state = Config(app), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()
        server.close()


async def test_a_socket_is_read_in_small_pieces() -> None:
    sizes = list[int]()
    sent = 8 * READ_BYTES_MAX
    async with connected(nothing, lambda *given: Reads(sizes, *given)) as (_, writer):
        writer.write(bytes(sent))
        async with asyncio.timeout(10):
            while sum(sizes) < sent:
                await asyncio.sleep(0.01)
    assert max(sizes) <= READ_BYTES_MAX


async def test_the_rest_of_an_answered_request_has_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A byte of it ends uvicorn's keep-alive; no further byte begins anything anew."""
    monkeypatch.setattr("gateway.web.http_heads.HEAD_S_MAX", 0.5)
    before = LATE_HEADS._value.get()
    async with connected(PlainTextResponse("ok"), HeadDeadline) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while not reader.at_eof() and loop.time() < began_s + 10:
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert 0.4 < loop.time() - began_s < 5
    assert LATE_HEADS._value.get() == before + 1


async def test_requests_in_a_row_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.http_heads.HEAD_S_MAX", 0.2)
    async with connected(PlainTextResponse("ok"), HeadDeadline) as (reader, writer):
        for _ in range(5):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(0.1)
