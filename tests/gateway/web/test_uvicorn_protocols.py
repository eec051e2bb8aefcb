"""Limits that uvicorn does not have. Deadlines and sizes of heads are tested with a running gateway
(tests/integration/test_bad_input.py)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import logging
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import websockets
from packaging.requirements import Requirement
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from gateway.telemetry.metrics import CLOSED, LATE_HEADS, REFUSED
from gateway.web.large_messages import LargeMessages
from gateway.web.uvicorn_protocols import (
    NOT_UTF_8,
    READ_AHEAD_MESSAGES,
    READ_BYTES_MAX,
    SMALL_MESSAGE_BYTES,
    HttpProtocol,
    WebSocketProtocol,
)
from gateway.web.websocket import LARGE_EXTENSION
from tools.lab.chaos.guests import UPGRADE
from tools.lab.harness.http import ask
from tools.ops.requirements import requirements

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Served:
    server: uvicorn.Server
    port: int

    def connect(self, path: str) -> Any:
        return websockets.connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, proxy=None)

    @property
    def protocol(self) -> WebSocketProtocol:
        """The gateway's end of the only connection."""
        connections = self.server.server_state.connections
        (protocol,) = [each for each in connections if isinstance(each, WebSocketProtocol)]
        return protocol


async def refuse(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("full", 503, {"Retry-After": "5"}))


async def forget(_websocket: WebSocket) -> None:
    """Answers nothing, which is an error indeed."""


@asynccontextmanager
async def serving(
    large: LargeMessages | None = None, **endpoints: Callable[[WebSocket], Awaitable[None]]
) -> AsyncIterator[Served]:
    app = Starlette(routes=[WebSocketRoute(f"/{name}", to) for name, to in endpoints.items()])
    protocol = WebSocketProtocol.sharing(large or LargeMessages(1 << 28, 1 << 24))
    # Without pings: raw clients would read them before the answers, on a slow machine.
    config = uvicorn.Config(
        app, ws=protocol, log_config=None, lifespan="off", ws_ping_interval=None
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield Served(server, listener.getsockname()[1])
        finally:
            server.should_exit = True
            await running


def refused(port: int, path: str) -> tuple[int, str | None]:
    """Status and ``Retry-After`` of the answer to an upgrade."""
    answer = ask(f"http://127.0.0.1:{port}{path}", headers=UPGRADE)
    return answer.status, answer.headers.get("retry-after")


async def answer_of(path: str) -> tuple[int, str | None]:
    async with serving(full=refuse, forgets=forget) as served:
        return await asyncio.to_thread(refused, served.port, path)


async def test_text_that_is_not_utf_8_is_logged_with_the_message_that_the_gateway_hides(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.receive_text()

    async with serving(accepts=accept) as served, served.connect("/accepts") as client:
        await client.send(b"\xff\xfe", text=True)
        await client.wait_closed()
        assert client.close_code == 1007
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (line.name, line.msg) == ("uvicorn.error", NOT_UTF_8)


async def test_a_refusal_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    assert await answer_of("/full") == (503, "5")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_missing_answer_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    assert await answer_of("/forgets") == (500, None)
    assert "without completing handshake" in caplog.text


def _refused_as_draining() -> float:
    value: float = REFUSED.labels("draining")._value.get()
    return value


async def test_an_unfinished_handshake_gets_503_at_shutdown() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()
    before = _refused_as_draining()

    async def slow(_websocket: WebSocket) -> None:
        asked.set()
        await ended.wait()

    async with serving(slow=slow) as served:
        answer = asyncio.create_task(asyncio.to_thread(refused, served.port, "/slow"))
        await asked.wait()
        served.server.should_exit = True
        assert await answer == (503, "1")
        ended.set()
    assert _refused_as_draining() == before + 1


async def test_reading_does_not_stop_while_messages_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stops = 0

    def pause(_transport: object) -> None:
        nonlocal stops
        stops += 1

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async with serving(echo=echo) as served, served.connect("/echo") as client:
        monkeypatch.setattr("asyncio.selector_events._SelectorTransport.pause_reading", pause)
        for number in range(20):
            await client.send(str(number))
            assert await client.recv() == str(number)
    assert stops == 0


async def test_reading_pauses_while_messages_are_not_taken() -> None:
    """The kernel's buffers fill, and the client waits; then all arrive, in order."""
    count, size = 400, 65_536
    taking = asyncio.Event()
    taken: list[int] = []

    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        await taking.wait()
        taken.extend([int(data[:4]) async for data in websocket.iter_bytes()])

    async def send(client: Any) -> None:
        for number in range(count):
            await client.send(b"%04d".ljust(size, b".") % number)

    async with serving(late=late) as served, served.connect("/late") as client:
        sending = asyncio.create_task(send(client))
        protocol = served.protocol
        while not protocol.read_paused:
            await asyncio.sleep(0.01)
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done
        read = protocol.queue.qsize()
        taking.set()
        await sending
    assert taken == list(range(count))
    # Several may come out of one read, of 256 KiB at most.
    assert READ_AHEAD_MESSAGES <= read <= READ_AHEAD_MESSAGES + 4


# ---------------------------------------------------------------------------------- large messages

LARGE = bytes(SMALL_MESSAGE_BYTES + (1 << 20))


def allow_large(websocket: WebSocket) -> None:
    websocket.scope["extensions"][LARGE_EXTENSION]()


class Taker:
    """Takes a start, begins a session when it may, and takes two further messages, the last one
    when it may."""

    def __init__(self) -> None:
        self.begin, self.go_on = asyncio.Event(), asyncio.Event()
        self.taken: list[int] = []

    async def serve(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await self.begin.wait()
        allow_large(websocket)
        self.taken.append(len(await websocket.receive_bytes()))
        await self.go_on.wait()
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.receive_bytes()


async def test_a_large_message_before_a_start_closes_with_1009() -> None:
    before = _closed(1009)
    async with serving(taker=Taker().serve) as served, served.connect("/taker") as client:
        sending = asyncio.create_task(client.send(LARGE))
        await client.wait_closed()
        await asyncio.gather(sending, return_exceptions=True)
        assert _closed(1009) == before + 1


def _closed(code: int) -> float:
    value: float = CLOSED.labels(code)._value.get()
    return value


async def test_a_large_message_right_behind_the_start_waits_for_it() -> None:
    taker = Taker()
    async with serving(taker=taker.serve) as served, served.connect("/taker") as client:
        await client.send("start")
        sending = asyncio.create_task(client.send(LARGE))
        while not served.protocol._large_paused:
            await asyncio.sleep(0.01)
        assert served.protocol._incomplete_bytes < SMALL_MESSAGE_BYTES + 2 * READ_BYTES_MAX * 8
        taker.begin.set()
        await sending
        while not taker.taken:
            await asyncio.sleep(0.01)
        assert taker.taken == [len(LARGE)]
        taker.go_on.set()


async def test_large_messages_wait_for_memory_until_others_are_taken() -> None:
    first, second = Taker(), Taker()
    large = LargeMessages(len(LARGE) + 1, len(LARGE) + 1)
    first.begin.set()
    second.begin.set()
    async with (
        serving(large, first=first.serve, second=second.serve) as served,
        served.connect("/first") as client,
        served.connect("/second") as other,
    ):
        await client.send("start")
        await other.send("start")
        await client.send(LARGE)
        while not first.taken:
            await asyncio.sleep(0.01)
        sending = asyncio.create_task(other.send(LARGE))
        while large.held_bytes <= len(LARGE):
            await asyncio.sleep(0.01)
        done, _ = await asyncio.wait([sending], timeout=0.3)
        assert not (done and second.taken) and not second.taken
        first.go_on.set()  # The application is done with the first message.
        await sending
        while not second.taken:
            await asyncio.sleep(0.01)
        second.go_on.set()
    assert large.held_bytes == 0


async def test_a_large_message_that_stops_closes_with_1008(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.web.uvicorn_protocols.LARGE_CHECK_S", 0.2)
    taker = Taker()
    taker.begin.set()
    stopped = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield LARGE
        await stopped.wait()

    async with serving(taker=taker.serve) as served, served.connect("/taker") as client:
        await client.send("start")
        sending = asyncio.create_task(client.send(pieces()))
        await client.wait_closed()
        stopped.set()
        await asyncio.gather(sending, return_exceptions=True)
        assert client.close_code == 1008
        assert client.close_reason == "the message arrives too slowly"
        taker.go_on.set()


async def test_a_client_whose_pongs_are_not_read_is_not_taken_for_lost() -> None:
    taker = Taker()
    async with serving(taker=taker.serve) as served, served.connect("/taker") as client:
        await client.send("start")
        sending = asyncio.create_task(client.send(LARGE))
        protocol = served.protocol
        while not protocol._large_paused:
            await asyncio.sleep(0.01)
        protocol.ping_timeout = 0.05
        protocol.send_keepalive_ping()
        await asyncio.sleep(0.3)
        assert client.state is State.OPEN
        protocol.ping_timeout = 60.0  # The pong comes behind the message.
        await asyncio.sleep(0.1)
        taker.begin.set()
        await sending
        while protocol.pending_ping_payload is not None:
            await asyncio.sleep(0.01)
        taker.go_on.set()


# ----------------------------------------------------------------------------------- other messages


async def take_one(websocket: WebSocket) -> None:
    """Send one message and receive its echo."""
    await websocket.accept()
    await websocket.send_bytes(await websocket.receive_bytes())


@asynccontextmanager
async def upgraded(
    port: int, path: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection beyond its upgrade, to send frames on that no client's library would."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        headers = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


async def test_a_message_of_any_number_of_frames_takes_the_room_of_its_bytes() -> None:
    pieces = 35_000
    async with (
        serving(takes=take_one) as served,
        upgraded(served.port, "/takes") as (reader, writer),
    ):
        writer.write(frame(Opcode.BINARY, b"begun", fin=False))
        await writer.drain()
        tracemalloc.start()
        empty, small = frame(Opcode.CONT, b"", fin=False), frame(Opcode.CONT, b"xy", fin=False)
        for _ in range(100):
            writer.write((empty + small) * (pieces // 100))
            await writer.drain()
        while len(served.protocol._fragments) < 5 + 2 * pieces:
            await asyncio.sleep(0.01)
        room, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert room < 20 * pieces  # As a list of bytes they take forty each.
        writer.write(frame(Opcode.CONT, b"ended"))
        message = b"begun" + b"xy" * pieces + b"ended"
        answer = await reader.readexactly(2 + 8 + len(message))  # With its length in 8 bytes.
        assert answer[10:] == message


async def test_a_client_that_does_not_read_gets_no_pongs() -> None:
    """They would pile up, for as long as the keep-alive takes to notice."""
    async with (
        serving(takes=take_one) as served,
        upgraded(served.port, "/takes") as (_, writer),
    ):
        pings = frame(Opcode.PING, b"p" * 125) * 1_000
        for _ in range(100):
            writer.write(pings)
            await writer.drain()
        writer.write(frame(Opcode.BINARY, b"behind them"))
        transport = served.protocol.transport
        async with asyncio.timeout(30):
            while served.protocol.writable.is_set():
                await asyncio.sleep(0.01)
        _, high = transport.get_write_buffer_limits()
        assert transport.get_write_buffer_size() < 2 * high + len(pings)


async def test_a_protocol_violation_is_counted() -> None:
    before = CLOSED.labels(1002)._value.get()
    async with (
        serving(takes=take_one) as served,
        upgraded(served.port, "/takes") as (reader, writer),
    ):
        writer.write(b"\x83\x80" + os.urandom(4))  # An opcode that does not exist.
        assert (await reader.read())[2:4] == (1002).to_bytes(2, "big")
    assert CLOSED.labels(1002)._value.get() == before + 1


async def test_a_keepalive_timeout_is_counted() -> None:
    before = CLOSED.labels(1011)._value.get()
    async with (
        serving(takes=take_one) as served,
        upgraded(served.port, "/takes") as (reader, _),
    ):
        protocol = served.protocol
        protocol.ping_timeout = 0.1
        protocol.send_keepalive_ping()
        assert (1011).to_bytes(2, "big") in await reader.read()
    assert CLOSED.labels(1011)._value.get() == before + 1


# ---------------------------------------------------------------------------------- the contract


def digest(function: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


CONTRACT: dict[type, dict[str, str]] = {
    H11Protocol: {
        "__init__": "ad1ed8e837b2",
        "connection_made": "6efb565ff3d3",
        "connection_lost": "dbb688fa2b38",
        "data_received": "e03b145518ca",
        "handle_events": "e63a9d1492e3",
        "send_400_response": "56937b748fc5",
        "timeout_keep_alive_handler": "fcd7338529fe",
    },
    WebSocketsSansIOProtocol: {
        "__init__": "631dcd744eab",
        "handle_connect": "fc648c2161ff",
        "handle_events": "b2c9351a5d13",
        "handle_cont": "d96fe1479da6",
        "handle_text": "6ae523180cf0",
        "handle_bytes": "2b22b21bf8fe",
        "handle_ping": "41bcf345d372",
        "handle_parser_exception": "ff5cf13c764f",
        "keepalive_timeout": "8e1ceb6ec446",
        "pause_writing": "4830f7e0d81f",
        "receive": "1dc0e7153900",
        "run_asgi": "662375aa38d9",
        "send": "d4919ed760ce",
        "send_receive_event_to_app": "a2b10de91477",
        "shutdown": "e8ace796ada6",
    },
}
"""The methods of uvicorn 0.54 that ours override or rely on, as they were read for that."""


@pytest.mark.parametrize(
    ("base", "name"),
    [(base, name) for base, methods in CONTRACT.items() for name in methods],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_uvicorns_methods_have_not_changed(base: type, name: str) -> None:
    """If this fails, compare the method with the one of ours in ``uvicorn_protocols``: does uvicorn
    do by itself now what it works around, and do its attributes still mean the same?"""
    assert digest(getattr(base, name)) == CONTRACT[base][name]


def test_the_version_is_bounded() -> None:
    (line,) = [line for line in requirements(ROOT / "pyproject.toml") if "uvicorn" in line]
    assert uvicorn.__version__ in Requirement(line).specifier
    assert "0.55.0" not in Requirement(line).specifier


# -------------------------------------------------------------------------------------------- HTTP


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("no request was sent")


class Reads(HttpProtocol):
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
    config, state = uvicorn.Config(app), ServerState()
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
        async with asyncio.timeout(30):
            while sum(sizes) < sent:
                await asyncio.sleep(0.01)
    assert max(sizes) <= READ_BYTES_MAX


async def test_the_rest_of_an_answered_request_has_a_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first byte ends uvicorn's keep-alive timeout; further bytes restart no deadline."""
    monkeypatch.setattr("gateway.web.uvicorn_protocols.HEAD_S_MAX", 0.5)
    before = LATE_HEADS._value.get()
    async with connected(PlainTextResponse("ok"), HttpProtocol) as (reader, writer):
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(30):
            while not reader.at_eof():
                writer.write(b"x")
                await asyncio.sleep(0.05)
        assert loop.time() - began_s > 0.4
    assert LATE_HEADS._value.get() == before + 1


async def test_requests_in_a_row_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.uvicorn_protocols.HEAD_S_MAX", 0.2)

    async def are_answered() -> bool:
        answered = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            async with connected(PlainTextResponse("ok"), HttpProtocol) as (reader, writer):
                for _ in range(5):
                    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
                    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
                    answered += 1
                    await asyncio.sleep(0.1)
        return answered == 5

    # The first head has one, which this process may miss if others use the processor.
    assert any([await are_answered() for _ in range(3)])
