"""Mutated WebSocket messages of three dialects, and HTTP requests, at a gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection

from tools.lab.fuzz import messages

CONNECTIONS: Final = 6
"""Concurrent connections."""
TALK_MESSAGES: Final = 12
"""At most, on one connection: the gateway may close it earlier."""
ANSWERS_WAIT_S: Final = 0.3
"""For answers after a connection's last message."""
ANSWER_S: Final = 2.0
"""For an HTTP answer; the gateway waits longer only for an incomplete request."""
PATIENCE_S: Final = 30.0
REFUSED_WAIT_S: Final = 0.2
REQUESTS_SHARE: Final = 0.5
"""Share of the turns that are an HTTP request; the others are a WebSocket conversation."""
INTERNAL_ERROR: Final = 1011


class EdgeFuzzer:
    """``run`` sends about ``count`` messages. ``problems`` holds effects that no input may have."""

    def __init__(self, http_url: str, *, seed: int, first: int, count: int) -> None:
        self.sent = 0
        self.closes: Counter[int] = Counter()
        self.statuses: Counter[int] = Counter()
        self.refused = 0
        self.problems: list[str] = []
        self._seed = seed
        self._end = first + count
        self._next = first
        place = urlsplit(http_url)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 80
        self._stopping = False

    async def run(self) -> None:
        await asyncio.gather(*(self._worker() for _ in range(CONNECTIONS)))

    def stop(self) -> None:
        self._stopping = True

    async def _worker(self) -> None:
        while self._next < self._end and not self._stopping:
            number = self._next
            if messages.random_of(self._seed, number).random() > REQUESTS_SHARE:
                length = min(TALK_MESSAGES, self._end - number)
                self._next += length
                await self._watched(self._talk(number, length), number)
            else:
                self._next += 1
                await self._watched(self._request(number), number)

    async def _watched(self, step: Coroutine[Any, Any, None], number: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await step
        except TimeoutError:
            self.problems.append(f"message {number}: no answer for {PATIENCE_S} s")
        except OSError as error:
            self.problems.append(f"message {number}: {error}")

    # ------------------------------------------------------------------------------------ WebSocket

    async def _talk(self, number: int, length: int) -> None:
        talk = messages.talk(self._seed, number, length)
        url = f"ws://{self._host}:{self._port}{talk.path}"
        try:
            socket = await websockets.connect(url, compression=None, proxy=None, max_size=None)
        except websockets.InvalidStatus as refusal:
            # Admission may refuse under this load.
            self.refused += 1
            self.sent += length
            if refusal.response.status_code != 503:
                self.problems.append(f"message {number}: {refusal}")
            await asyncio.sleep(REFUSED_WAIT_S)
            return
        try:
            reading = asyncio.create_task(_read(socket))
            with contextlib.suppress(websockets.ConnectionClosed):
                for is_text, payload in talk.messages:
                    self.sent += 1
                    await socket.send(payload, text=is_text)
            await asyncio.wait([reading], timeout=ANSWERS_WAIT_S)
        finally:
            await socket.close()
        await reading
        code = socket.close_code or 0
        self.closes[code] += 1
        if code == INTERNAL_ERROR:
            self.problems.append(f"message {number}: closed with {code}: {socket.close_reason}")

    # ----------------------------------------------------------------------------------------- HTTP

    async def _request(self, number: int) -> None:
        self.sent += 1
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(messages.request(self._seed, number))
                await writer.drain()
            status_line = b""
            # The gateway waits for the rest of a body that is shorter than declared.
            with contextlib.suppress(ConnectionError, TimeoutError):
                status_line = await asyncio.wait_for(reader.readline(), ANSWER_S)
                while await reader.read(65_536):
                    pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        words = status_line.split()
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        self.statuses[status] += 1
        if status >= 500 and status != 503:
            self.problems.append(f"message {number}: HTTP {status}")


async def _read(socket: ClientConnection) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        async for _ in socket:
            pass
