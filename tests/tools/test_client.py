"""The client against scripted peers on real sockets; tests/integration has it against a gateway."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tools import client as c

Script = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def peer(script: Script, **options: Any) -> AsyncIterator[str]:
    async with serve(script, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws/asr"


async def tell(socket: ServerConnection, **fields: Any) -> None:
    await socket.send(json.dumps(fields))


async def start(socket: ServerConnection) -> dict[str, Any]:
    asked: dict[str, Any] = json.loads(await socket.recv())
    await tell(
        socket,
        type="ack",
        status="session_started",
        session_id=asked["session_id"],
        resume_token="secret",
        next_chunk_index=0,
    )
    return asked


async def acknowledge(socket: ServerConnection, index: int) -> None:
    await tell(socket, type="ack", status="received", chunk_index=index)


async def end(socket: ServerConnection) -> None:
    await tell(
        socket,
        type="final_result",
        session_id="s",
        text="one two",
        duration=1.5,
        chunk_count=2,
        stored=True,
    )


@pytest.mark.parametrize("binary", [True, False])
async def test_session_from_start_to_final(binary: bool) -> None:
    received: list[Any] = []

    async def script(socket: ServerConnection) -> None:
        received.append(await start(socket))
        for index in range(2):
            message = await socket.recv()
            received.append(message if isinstance(message, bytes) else json.loads(message))
            await acknowledge(socket, index)
        received.append(json.loads(await socket.recv()))
        await tell(socket, type="partial_result", segment_index=0, text="one")
        await tell(
            socket,
            type="chunk_result",
            session_id="s",
            segment_index=0,
            chunk_index=1,
            start_ms=0,
            end_ms=900,
            text="one two",
        )
        await end(socket)

    async with (
        peer(script) as url,
        c.connect(
            url, session_id="s", language="en", partials=True, binary=binary, hotwords=["two"]
        ) as session,
    ):
        assert [await session.send(b"ab"), await session.send(b"cd")] == [0, 1]
        await session.finish()
        events = [event async for event in session.events()]

    assert session.resume_token == "secret"
    assert session.acknowledged_chunks == 2
    assert events == [
        c.Acknowledged(0),
        c.Acknowledged(1),
        c.PartialText(0, "one"),
        c.ChunkText(segment_index=0, chunk_index=1, start_ms=0, end_ms=900, text="one two"),
        c.FinalText(text="one two", duration_s=1.5, chunk_count=2, stored=True),
    ]
    first, *chunks, last = received
    assert first == {
        "action": "start",
        "session_id": "s",
        "mode": "auto",
        "sample_rate": 16_000,
        "language": "en",
        "hotwords": ["two"],
        "partials": True,
    }
    assert last == {"action": "finish", "session_id": "s"}
    if binary:
        assert chunks == [b"ab", b"cd"]
    else:
        assert [base64.b64decode(chunk["audio_data"]) for chunk in chunks] == [b"ab", b"cd"]
        assert [chunk["chunk_index"] for chunk in chunks] == [0, 1]


async def test_send_waits_for_acknowledgements() -> None:
    release = asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await start(socket)
        for _ in range(c.UNACKNOWLEDGED_CHUNKS_MAX):
            await socket.recv()
        await release.wait()
        await acknowledge(socket, 0)
        await socket.recv()
        await end(socket)

    async with peer(script) as url, c.connect(url) as session:
        for _ in range(c.UNACKNOWLEDGED_CHUNKS_MAX):
            await session.send(b"..")
        blocked = asyncio.create_task(session.send(b".."))
        await asyncio.wait([blocked], timeout=0.05)
        assert not blocked.done()
        release.set()
        assert await blocked == c.UNACKNOWLEDGED_CHUNKS_MAX
        assert (await session.final()).text == "one two"


async def test_a_problem_with_a_chunk_frees_its_place() -> None:
    async def script(socket: ServerConnection) -> None:
        await start(socket)
        for index in range(c.UNACKNOWLEDGED_CHUNKS_MAX):
            await socket.recv()
            await tell(
                socket, type="error", code="bad_audio", message="no audio", chunk_index=index
            )
        await socket.recv()
        await end(socket)

    async with peer(script) as url, c.connect(url) as session:
        for _ in range(c.UNACKNOWLEDGED_CHUNKS_MAX + 1):
            await session.send(b"..")
        events = [event async for event in session.events()]
    assert events[0] == c.Problem("bad_audio", "no audio", 0, None, None)
    assert len(events) == c.UNACKNOWLEDGED_CHUNKS_MAX + 1


async def test_a_waiting_sender_learns_of_a_lost_connection() -> None:
    async def script(socket: ServerConnection) -> None:
        await start(socket)
        for _ in range(c.UNACKNOWLEDGED_CHUNKS_MAX):
            await socket.recv()
        await socket.close(1012)

    async with peer(script) as url, c.connect(url) as session:
        with pytest.raises(c.SessionLostError):
            for _ in range(c.UNACKNOWLEDGED_CHUNKS_MAX + 1):
                await session.send(b"..")
        with pytest.raises(c.SessionLostError):
            await session.final()


@pytest.mark.parametrize("retry_after, expected", [("7", 7.0), (None, None), ("soon", None)])
async def test_refusal_tells_when_to_come_back(
    retry_after: str | None, expected: float | None
) -> None:
    def refuse(socket: ServerConnection, _request: Request) -> Response:
        response = socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, '{"code":"overloaded"}')
        if retry_after is not None:
            response.headers["Retry-After"] = retry_after
        return response

    async with peer(end, process_request=refuse) as url:
        with pytest.raises(c.RefusedError) as refused:
            async with c.connect(url):
                pytest.fail("connected")
    assert refused.value.status == 503
    assert refused.value.retry_after_s == expected
    assert "overloaded" in str(refused.value)


async def test_a_start_that_fails_is_told() -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.recv()
        await tell(socket, type="error", code="bad_message", message="mode: unknown")

    async with peer(script) as url:
        with pytest.raises(c.SessionError, match="bad_message: mode: unknown"):
            async with c.connect(url):
                pytest.fail("started")


async def test_nobody_listening_is_one_clear_error(unused_tcp_port: int) -> None:
    with pytest.raises(c.SessionError, match="cannot connect to ws://"):
        async with c.connect(f"ws://127.0.0.1:{unused_tcp_port}/ws/asr"):
            pytest.fail("connected")


@pytest.mark.parametrize(
    "message", ["", "[]", "{}", '{"type":"news"}', '{"type":"ack","status":"received"}', "[" * 9999]
)
def test_what_is_no_event_is_refused(message: str) -> None:
    with pytest.raises(c.SessionError):
        c.parse_event(message)
