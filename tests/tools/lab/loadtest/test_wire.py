from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, serve

from tools.lab.loadtest.wire import Wire


class Heard:
    def __init__(self) -> None:
        self.calls: list[object] = []
        self.changed = asyncio.Event()

    def _note(self, call: object) -> None:
        self.calls.append(call)
        self.changed.set()

    def opened(self) -> None:
        self._note("opened")

    def refused(self, status: int, retry_after_s: float | None) -> None:
        self._note((status, retry_after_s))

    def arrived(self, message: str) -> None:
        self._note(message)

    def lost(self, code: int) -> None:
        self._note(code)

    def writable(self) -> None:
        self._note("writable")

    async def until(self, call: object) -> None:
        async with asyncio.timeout(10):
            while call not in self.calls:
                self.changed.clear()
                await self.changed.wait()


async def connected(port: int) -> tuple[Wire, Heard]:
    heard = Heard()
    wire = Wire(f"ws://127.0.0.1:{port}/", heard)
    await asyncio.get_running_loop().create_connection(lambda: wire, "127.0.0.1", port)
    return wire, heard


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(f"{type(message).__name__} {len(message)}")
        if message == "leave":
            await socket.close(1012)


async def test_messages_both_ways_and_the_close_code() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        wire, heard = await connected(server.sockets[0].getsockname()[1])
        await heard.until("opened")
        wire.send(b"x" * 70_000)
        wire.send("leave")
        await heard.until(1012)
    assert heard.calls == ["opened", "bytes 70000", "str 5", 1012]


async def test_a_token_is_shown() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        heard = Heard()
        wire = Wire(f"ws://127.0.0.1:{port}/", heard, "secret")
        await asyncio.get_running_loop().create_connection(lambda: wire, "127.0.0.1", port)
        await heard.until("opened")
        request = next(iter(server.connections)).request
        assert request is not None and request.headers["Authorization"] == "Bearer secret"
        wire.send("leave")
        await heard.until(1012)


async def test_messages_after_the_servers_close_are_dropped() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        wire, heard = await connected(server.sockets[0].getsockname()[1])
        await heard.until("opened")
        wire.send("leave")
        await heard.until(1012)
        wire.send(b"too late")
    assert heard.calls == ["opened", "str 5", 1012]


async def test_a_closed_wire_sends_nothing() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        wire, heard = await connected(server.sockets[0].getsockname()[1])
        await heard.until("opened")
        wire.close()
        await next(iter(server.connections)).wait_closed()
    assert heard.calls == ["opened"]


async def test_a_server_that_speaks_no_http_is_lost() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        _, heard = await connected(server.sockets[0].getsockname()[1])
        await heard.until(1006)
    assert heard.calls == [1006]
