"""Answers to requests whose body is not read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from gateway.web.unread_bodies import UnreadBodies

BODY = bytes(3_000_000)
"""More than the buffers of both sockets hold."""


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await PlainTextResponse("no", 415)(scope, receive, send)


async def exchange(head: str, body: bytes) -> bytes:
    """The answer to a client that reads once everything is sent."""
    config = uvicorn.Config(UnreadBodies(refuse), port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    (listener,) = server.servers
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    try:
        writer.write(head.encode() + body)
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()
        await server.shutdown()


@pytest.mark.parametrize(
    "head",
    [
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: TE, Close\r\n",
        "POST / HTTP/1.0\r\n",
    ],
)
async def test_the_answer_reaches_a_client_that_sends_the_whole_body_first(head: str) -> None:
    answer = await exchange(f"{head}Content-Length: {len(BODY)}\r\n\r\n", BODY)
    assert answer.startswith(b"HTTP/1.1 415 ") and answer.endswith(b"no")
