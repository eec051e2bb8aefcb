"""Refusals before the whole request was read, whose connection is closed after the answer: the rest
of the body is read first. Closing a socket with unread data makes the kernel send a reset, after
which the client may not see the answer. Proxies that speak HTTP/1.0, such as nginx by default, and
many programs close their connections.

Other connections stay open, and what arrives after the answer is read and discarded
(``uvicorn_protocols``).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REST_S_MAX: Final = 10.0
"""Longest time that an answer waits for the rest of the body."""


class UnreadBodies:
    """ASGI middleware. It belongs outside of everything that refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _closes(scope):
            await self._app(scope, receive, send)
            return
        is_read = False

        async def receive_body() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body", False)
            return message

        async def send_when_read(message: Message) -> None:
            if message["type"] == "http.response.start":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REST_S_MAX):
                        while not is_read:
                            await receive_body()
            await send(message)

        await self._app(scope, receive_body, send_when_read)


def _closes(scope: Scope) -> bool:
    """Whether the connection is closed after the answer, and the client does not wait for leave to
    send the body."""
    headers = Headers(scope=scope)
    tokens = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    is_asked = "close" in tokens or scope.get("http_version") == "1.0"
    return is_asked and "expect" not in headers
