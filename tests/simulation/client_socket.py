"""A WebSocket between a simulated client and the real ``gateway.web.websocket.Connection``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from starlette.websockets import WebSocketDisconnect, WebSocketState

from gateway.web.websocket import WRITE_EXTENSION
from tests.simulation.event_loop import WorldLoop
from tests.simulation.world import DELAY_S_MAX, DELAY_S_MIN, World

CLOGGED_SENDS_MAX = 20
"""Messages that the kernel buffers while the network is clogged."""
CLOSED_ABNORMALLY = 1006


class End(Protocol):
    """The client's side."""

    def opened(self, socket: SimSocket) -> None: ...
    def refused(self, socket: SimSocket) -> None: ...
    def receive(self, socket: SimSocket, message: str) -> None: ...
    def closed(self, socket: SimSocket, code: int) -> None: ...


class Pipe:
    """One direction of a TCP connection: ordered and without loss until it breaks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last_s = 0.0
        self.clogged_until_s = 0.0
        self.broken = False

    def send(self, deliver: Callable[[], None]) -> None:
        world = self._world
        arrival_s = world.now_s + world.rng.uniform(DELAY_S_MIN, DELAY_S_MAX)
        arrival_s = self._last_s = max(self._last_s, arrival_s, self.clogged_until_s)
        world.at(arrival_s, lambda: None if self.broken else deliver())


class SimSocket:
    """The part of ``starlette.websockets.WebSocket`` that a gateway's connection uses."""

    client = None

    def __init__(self, world: World, loop: WorldLoop, end: End) -> None:
        self.application_state = WebSocketState.CONNECTED
        self.open = True
        """On the client's side."""
        self._world = world
        self._loop = loop
        self._end = end
        self._up = Pipe(world)
        self._down = Pipe(world)
        self._inbound: deque[dict[str, Any]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._sent_clogged = 0
        self.scope = {"extensions": {WRITE_EXTENSION: self._write_at_once}}

    # ------------------------------------------------------------------------- the gateway's side

    def accept(self) -> None:
        self._down.send(lambda: self._end.opened(self))

    def refuse(self) -> None:
        self._down.send(lambda: self._end.refused(self))

    async def receive(self) -> dict[str, Any]:
        while not self._inbound:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._inbound.popleft()

    def _write_at_once(self, text: str) -> bool:
        clogged = self._down.clogged_until_s > self._world.now_s
        if clogged or self.application_state is not WebSocketState.CONNECTED:
            return False
        self._down.send(lambda: self._end.receive(self, text))
        return True

    async def send_text(self, text: str) -> None:
        if self._down.clogged_until_s > self._world.now_s:
            self._sent_clogged += 1
            if self._sent_clogged > CLOGGED_SENDS_MAX:
                await asyncio.sleep(self._down.clogged_until_s - self._world.now_s)
        else:
            self._sent_clogged = 0
        if self.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect(CLOSED_ABNORMALLY)
        self._down.send(lambda: self._end.receive(self, text))

    async def close(self, code: int = 1000, _reason: str = "") -> None:
        self.application_state = WebSocketState.DISCONNECTED
        self._down.send(lambda: self._end.closed(self, code))
        self._hang_up(code)

    # -------------------------------------------------------------------------- the client's side

    def send(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        self._up.send(lambda: self._arrive({"type": "websocket.receive", kind: message}))

    def leave(self, server_notices_s: float) -> None:
        """The client loses its network; the gateway notices when its pings are not answered.
        Messages under way are lost, or arrive, perhaps after the client has resumed."""
        self.open = False
        self._down.broken = True
        self._up.broken = self._world.rng.random() < 0.5
        self._world.after(server_notices_s, lambda: self._hang_up(CLOSED_ABNORMALLY))

    def clog(self, seconds: float, *, up: bool, down: bool) -> None:
        until_s = self._world.now_s + seconds
        for pipe, chosen in ((self._up, up), (self._down, down)):
            if chosen:
                pipe.clogged_until_s = until_s

    def unclog(self) -> None:
        self._up.clogged_until_s = self._down.clogged_until_s = 0.0

    def reset(self) -> None:
        """The gateway was killed; what it had written may still arrive."""
        self._up.broken = True
        if self._world.rng.random() < 0.5:
            self._down.broken = True
            delay_s = self._world.rng.uniform(DELAY_S_MIN, DELAY_S_MAX)
            self._world.after(delay_s, lambda: self._end.closed(self, CLOSED_ABNORMALLY))
        else:
            self._down.send(lambda: self._end.closed(self, CLOSED_ABNORMALLY))

    def _hang_up(self, code: int) -> None:
        self._arrive({"type": "websocket.disconnect", "code": code})

    def _arrive(self, message: dict[str, Any]) -> None:
        def take() -> None:
            if message["type"] == "websocket.disconnect":
                self.application_state = WebSocketState.DISCONNECTED
            self._inbound.append(message)
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

        self._loop.call_soon(take)
