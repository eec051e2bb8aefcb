"""Clients that try again when a gateway refuses them for a moment.

A gateway without a report of its broker for a second, or whose workers' leases have ended, refuses
every session. On a busy machine one of them may be kept still for so long.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import websockets
from websockets.asyncio.client import ClientConnection

import asr_client

PATIENCE_S = 60.0
"""From the first attempt to connect to the last one."""
PAUSE_S = 0.2
UNAVAILABLE = 503

T = TypeVar("T")


def _status(refusal: Exception) -> int:
    if isinstance(refusal, websockets.InvalidStatus):
        return refusal.response.status_code
    return refusal.status if isinstance(refusal, asr_client.RefusedError) else 0


async def admitted(connect: Callable[[], Awaitable[T]]) -> T:
    """Call ``connect`` until it is not refused with 503. Other errors are raised."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await connect()
        except (websockets.InvalidStatus, asr_client.RefusedError) as refusal:
            if _status(refusal) != UNAVAILABLE or time.monotonic() > deadline_s:
                raise
        await asyncio.sleep(PAUSE_S)


@contextlib.asynccontextmanager
async def open_socket(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """``websockets.connect``."""

    async def connect() -> ClientConnection:
        return await websockets.connect(url, **options)

    async with await admitted(connect) as socket:
        yield socket


@contextlib.asynccontextmanager
async def open_session(url: str, **options: Any) -> AsyncIterator[asr_client.Session]:
    """``asr_client.connect``."""
    async with contextlib.AsyncExitStack() as stack:

        def connect() -> Awaitable[asr_client.Session]:
            return stack.enter_async_context(asr_client.connect(url, **options))

        yield await admitted(connect)
