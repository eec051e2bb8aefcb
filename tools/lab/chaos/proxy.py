"""A relay between two processes of the system that can cut, delay or block the connection.

It has a thread and an event loop of its own; call its methods from any other thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP port of this host, or a Unix socket."""

    port: int = 0
    path: Path | None = None


class Proxy:
    """Relays connections from ``listen`` to ``target``, from ``start`` to ``stop``."""

    def __init__(self, listen: Address, target: Address) -> None:
        self._listen = listen
        self._target = target
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._relays: set[asyncio.Task[Any]] = set()
        self._flowing = {"out": asyncio.Event(), "back": asyncio.Event()}
        self._delay_s = 0.0
        self._refusing = False

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._open())
        self.heal()

    def stop(self) -> None:
        if self._thread is None:
            return
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ----------------------------------------------------------------------------------- the faults

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        self._do(self._set(flowing=(True, True), refusing=True, hang_up=True))

    def clog(self, *, out: bool = True, back: bool = True) -> None:
        """Hold back all data in one direction or both, and keep connections open."""
        self._do(self._set(flowing=(not out, not back)))

    def delay(self, delay_s: float) -> None:
        """Deliver everything later, in order."""
        self._do(self._set(delay_s=delay_s))

    def hang_up(self) -> None:
        """End all connections, and accept new ones."""
        self._do(self._set(hang_up=True))

    def heal(self) -> None:
        self._do(self._set())

    # ---------------------------------------------------------------------------------- on the loop

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _open(self) -> None:
        if self._listen.path is not None:
            self._server = await asyncio.start_unix_server(self._serve, self._listen.path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._listen.port)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for relay in list(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _set(
        self,
        *,
        flowing: tuple[bool, bool] = (True, True),
        delay_s: float = 0.0,
        refusing: bool = False,
        hang_up: bool = False,
    ) -> None:
        self._delay_s = delay_s
        self._refusing = refusing
        for event, flows in zip(self._flowing.values(), flowing, strict=True):
            if flows:
                event.set()
            else:
                event.clear()
        if hang_up:
            for writer in list(self._writers):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            # The relay ends when either side hangs up, and when the proxy stops.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if not self._refusing:
                    await self._relay(reader, writer)
        finally:
            writer.transport.abort()
            self._relays.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._target.path is not None:
            there = await asyncio.open_unix_connection(self._target.path)
        else:
            there = await asyncio.open_connection("127.0.0.1", self._target.port)
        self._writers |= {writer, there[1]}
        try:
            ways = (
                asyncio.create_task(self._pump(reader, there[1], "out")),
                asyncio.create_task(self._pump(there[0], writer, "back")),
            )
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._writers -= {writer, there[1]}
            there[1].transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                await self._flowing[way].wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                writer.write(data)
                await writer.drain()
