"""Sessions against scripted servers on real sockets."""

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

import asr_client as c
from asr_client.client import PROBLEMS_KEPT_MAX, UNACKNOWLEDGED_CHUNKS_MAX, authorization

Script = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def peer(script: Script, **options: Any) -> AsyncIterator[str]:
    async with serve(script, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws/asr"


async def send(socket: ServerConnection, **fields: Any) -> None:
    await socket.send(json.dumps(fields))


async def start(socket: ServerConnection) -> dict[str, Any]:
    asked: dict[str, Any] = json.loads(await socket.recv())
    await send(
        socket,
        type="ack",
        status="session_started",
        session_id=asked["session_id"],
        resume_token="secret",
        next_chunk_index=0,
    )
    return asked


async def acknowledge(socket: ServerConnection, index: int) -> None:
    await send(socket, type="ack", status="received", chunk_index=index)


async def send_segment(socket: ServerConnection, index: int, text: str) -> None:
    await send(
        socket,
        type="chunk_result",
        session_id="s",
        segment_index=index,
        chunk_index=index,
        start_ms=0,
        end_ms=900,
        text=text,
    )


async def end(socket: ServerConnection) -> None:
    await send(
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
        await send(socket, type="partial_result", segment_index=0, text="one")
        await send_segment(socket, 0, "one two")
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
        c.PartialResult(0, "one"),
        c.Segment(segment_index=0, chunk_index=0, start_ms=0, end_ms=900, text="one two"),
        c.FinalResult(text="one two", duration_s=1.5, chunk_count=2, stored=True),
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


async def test_send_waits_while_too_many_chunks_are_unacknowledged() -> None:
    release = asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await start(socket)
        for _ in range(UNACKNOWLEDGED_CHUNKS_MAX):
            await socket.recv()
        await release.wait()
        await acknowledge(socket, 0)
        await socket.recv()
        await end(socket)

    async with peer(script) as url, c.connect(url) as session:
        for _ in range(UNACKNOWLEDGED_CHUNKS_MAX):
            await session.send(b"..")
        blocked = asyncio.create_task(session.send(b".."))
        await asyncio.wait([blocked], timeout=0.05)
        assert not blocked.done()
        release.set()
        assert await blocked == UNACKNOWLEDGED_CHUNKS_MAX
        assert (await session.final()).text == "one two"


async def test_an_error_about_a_chunk_acknowledges_it() -> None:
    async def script(socket: ServerConnection) -> None:
        await start(socket)
        for index in range(UNACKNOWLEDGED_CHUNKS_MAX):
            await socket.recv()
            await send(
                socket, type="error", code="bad_audio", message="no audio", chunk_index=index
            )
        await socket.recv()
        await end(socket)

    async with peer(script) as url, c.connect(url) as session:
        for _ in range(UNACKNOWLEDGED_CHUNKS_MAX + 1):
            await session.send(b"..")
        events = [event async for event in session.events()]
    assert events[0] == c.Problem("bad_audio", "no audio", 0, None, None)
    assert len(events) == UNACKNOWLEDGED_CHUNKS_MAX + 1


async def test_a_waiting_sender_raises_when_the_connection_is_lost() -> None:
    async def script(socket: ServerConnection) -> None:
        await start(socket)
        for _ in range(UNACKNOWLEDGED_CHUNKS_MAX):
            await socket.recv()
        await socket.close(1012)

    async with peer(script) as url, c.connect(url, resume_s=0) as session:
        with pytest.raises(c.SessionLostError):
            for _ in range(UNACKNOWLEDGED_CHUNKS_MAX + 1):
                await session.send(b"..")
        with pytest.raises(c.SessionLostError):
            await session.final()


async def test_a_lost_connection_is_resumed_and_no_segment_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    starts: list[dict[str, Any]] = []
    heard: list[list[Any]] = []

    async def script(socket: ServerConnection) -> None:
        asked = json.loads(await socket.recv())
        starts.append(asked)
        heard.append([])
        resumed = len(starts) > 1
        await send(
            socket,
            type="ack",
            status="session_resumed" if resumed else "session_started",
            session_id=asked["session_id"],
            resume_token=f"secret{len(starts)}",
            next_chunk_index=1 if resumed else 0,
        )
        if not resumed:
            for _ in range(3):
                heard[-1].append(await socket.recv())
            await send_segment(socket, 0, "one")
            await socket.close(1012)
            return
        for _ in range(3):
            heard[-1].append(await socket.recv())
        await send_segment(socket, 0, "one")
        await send_segment(socket, 1, "two")
        await end(socket)

    async with peer(script) as url, c.connect(url, session_id="s") as session:
        for audio in (b"aa", b"bb", b"cc"):
            await session.send(audio)
        events = [await anext(aiter(session.events()))]
        await session.finish()
        events += [event async for event in session.events()]
    assert "resume_token" not in starts[0]
    assert starts[1]["resume_token"] == "secret1"
    assert starts[1]["next_segment_index"] == 1
    assert heard[0] == [b"aa", b"bb", b"cc"]
    assert heard[1] == [b"bb", b"cc", json.dumps({"action": "finish", "session_id": "s"})]
    assert [event.text for event in events if isinstance(event, c.Segment)] == ["one", "two"]
    assert session.connections == 2 and session.resume_token == "secret2"
    assert "connection lost (close code 1012), resuming session s" in caplog.text


async def test_resumption_is_retried_while_the_server_is_busy_or_unable() -> None:
    tries: list[str] = []

    def busy(socket: ServerConnection, _request: Request) -> Response | None:
        tries.append("upgrade")
        if len(tries) == 2:
            response = socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "{}")
            response.headers["Retry-After"] = "0"
            return response
        return None

    async def script(socket: ServerConnection) -> None:
        if len(tries) == 3:
            await socket.recv()
            await send(socket, type="error", code="resume_unavailable", message="database away")
            await socket.wait_closed()
            return
        await start(socket)
        if len(tries) == 1:
            await socket.close(1011)
        else:
            await end(socket)

    async with peer(script, process_request=busy) as url, c.connect(url) as session:
        assert (await session.final()).text == "one two"
    assert len(tries) == 4 and session.connections == 2


@pytest.mark.parametrize("code", [1000, 1008, 1009])
async def test_other_close_codes_end_the_session(code: int) -> None:
    connections = 0

    async def script(socket: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await start(socket)
        await socket.close(code)

    async with peer(script) as url, c.connect(url) as session:
        with pytest.raises(c.SessionLostError, match=str(code)):
            await session.final()
    assert connections == 1


async def test_a_session_that_cannot_be_resumed() -> None:
    connections = 0

    async def script(socket: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await start(socket)
            await socket.close(1012)
            return
        await socket.recv()
        await send(socket, type="error", code="not_resumable", message="not resumable")

    async with peer(script) as url, c.connect(url) as session:
        for _ in range(2):
            with pytest.raises(c.SessionError, match="not_resumable"):
                await session.final()
        with pytest.raises(c.SessionError, match="not_resumable"):
            await session.send(b"..")


async def test_resumption_ends_at_its_deadline() -> None:
    async def script(socket: ServerConnection) -> None:
        await start(socket)
        server.close(close_connections=False)
        await socket.close(1012)

    async with serve(script, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with c.connect(f"ws://127.0.0.1:{port}/ws/asr", resume_s=0.5) as session:
            with pytest.raises(c.SessionLostError, match="not resumed within"):
                await session.final()


@pytest.mark.parametrize("retry_after, expected", [("7", 7.0), (None, None), ("soon", None)])
async def test_a_busy_server_reports_retry_after(
    retry_after: str | None, expected: float | None
) -> None:
    def refuse(socket: ServerConnection, _request: Request) -> Response:
        response = socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, '{"code":"overloaded"}')
        if retry_after is not None:
            response.headers["Retry-After"] = retry_after
        return response

    async with peer(end, process_request=refuse) as url:
        with pytest.raises(c.ServerBusyError) as refused:
            async with c.connect(url):
                pytest.fail("connected")
    assert refused.value.status == 503
    assert refused.value.retry_after_s == expected
    assert "overloaded" in str(refused.value)


async def test_a_failed_start() -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.recv()
        await send(socket, type="error", code="bad_message", message="mode: unknown")

    async with peer(script) as url:
        with pytest.raises(c.SessionError, match="bad_message: mode: unknown"):
            async with c.connect(url):
                pytest.fail("started")


async def test_an_unreachable_server(unused_tcp_port: int) -> None:
    with pytest.raises(c.UnreachableError, match="cannot connect to ws://"):
        async with c.connect(f"ws://127.0.0.1:{unused_tcp_port}/ws/asr"):
            pytest.fail("connected")


@pytest.mark.parametrize(
    "answer, reported",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "has no TLS; use ws://"),
        (b"", "closes the connection"),
    ],
)
async def test_tls_where_there_is_none(answer: bytes, reported: str) -> None:
    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(answer_and_close, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(c.UnreachableError, match=reported):
            async with c.connect(f"wss://127.0.0.1:{port}/ws/asr"):
                pytest.fail("connected")


async def test_a_redirection_names_the_address_to_use() -> None:
    def redirect(socket: ServerConnection, _request: Request) -> Response:
        response = socket.respond(HTTPStatus.MOVED_PERMANENTLY, "")
        response.headers["Location"] = "https://asr.example.com/ws/asr"
        return response

    async with peer(end, process_request=redirect) as url:
        with pytest.raises(c.UnreachableError, match=r"redirects to https://asr\.example\.com/ws"):
            async with c.connect(url):
                pytest.fail("connected")


async def test_a_refusal_for_another_reason() -> None:
    def refuse(socket: ServerConnection, _request: Request) -> Response:
        return socket.respond(HTTPStatus.UNAUTHORIZED, "show a token")

    async with peer(end, process_request=refuse) as url:
        with pytest.raises(c.RefusedError, match="show a token") as refused:
            async with c.connect(url):
                pytest.fail("connected")
    assert refused.value.status == 401
    assert not isinstance(refused.value, c.ServerBusyError)


async def test_iteration_yields_segments_and_records_problems(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script(socket: ServerConnection) -> None:
        await start(socket)
        await send(socket, type="partial_result", segment_index=0, text="on")
        await send_segment(socket, 0, "one")
        await send(
            socket, type="error", code="chunk_failed", message="three attempts", segment_index=1
        )
        await send_segment(socket, 2, "two")
        await end(socket)

    async with peer(script) as url, c.connect(url) as session:
        texts = [segment.text async for segment in session]
        assert texts == ["one", "two"]
        assert [problem.code for problem in session.problems] == ["chunk_failed"]
        assert (await session.final()).text == "one two"
        assert [segment async for segment in session] == []
    assert "chunk_failed: three attempts" in caplog.text


async def test_only_the_latest_problems_are_kept() -> None:
    async def script(socket: ServerConnection) -> None:
        await start(socket)
        for index in range(PROBLEMS_KEPT_MAX + 1):
            await send(socket, type="error", code=f"e{index}", message="")
        await end(socket)

    async with peer(script) as url, c.connect(url) as session:
        await session.final()
    assert len(session.problems) == PROBLEMS_KEPT_MAX
    assert session.problems[0].code == "e1"


def test_a_token_may_end_with_a_line_break_and_not_contain_one() -> None:
    assert authorization("secret\n") == {"Authorization": "Bearer secret"}
    assert authorization(" \n") == authorization(None) == {}
    for token in ("sec\nret", "secré", "sec密"):
        with pytest.raises(ValueError, match="control character, or one") as raised:
            authorization(token)
        assert "sec" not in str(raised.value)
