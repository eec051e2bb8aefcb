"""Deadlines and sizes of heads are tested with a running gateway (test_bad_input.py)."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from gateway.http_heads import READ_BYTES_MAX, HeadDeadline


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("no request was sent")


class Reads(HeadDeadline):
    """Notes how much comes at once."""

    def __init__(self, sizes: list[int], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sizes = sizes

    def data_received(self, data: bytes) -> None:
        self._sizes.append(len(data))


async def test_a_socket_is_read_in_small_pieces() -> None:
    config, state, sizes = Config(nothing), ServerState(), list[int]()
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Reads(sizes, config, state, {}), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    sent = 8 * READ_BYTES_MAX
    writer.write(bytes(sent))
    async with asyncio.timeout(10):
        while sum(sizes) < sent:
            await asyncio.sleep(0.01)
    assert max(sizes) <= READ_BYTES_MAX
    writer.close()
    await writer.wait_closed()
    server.close()
