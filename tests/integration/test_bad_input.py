"""docs/bad_input.md, row by row, against a running system: answers to
input that no correct client sends, and no effect on other sessions."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import websockets

from gateway.settings import GatewaySettings
from gateway.web.uvicorn_protocols import HEAD_S_MAX
from tests.conftest import EmbeddedServices
from tests.integration.admitted import open_socket
from tests.integration.impatient_gateway import PING_S
from tests.integration.raw_http import status_of, upload
from tests.integration.silent_client import SilentClient
from tests.integration.slow_head import SlowHead
from tests.integration.speech import chunk_message, spoken
from tests.integration.test_protocol import talking
from tools.lab.encoded_audio import encode
from tools.lab.fuzz.run import Target, run
from tools.lab.harness import database
from tools.lab.harness.http import ask
from tools.lab.harness.ports import free_port, free_range
from tools.lab.harness.process import LoggedProcess
from tools.lab.harness.stack import Stack, running_stack, wait_until

SESSION_AUDIO_S_MAX = 60
MESSAGE_BYTES_MAX = GatewaySettings.model_fields["chunk_bytes_max"].default * 3 // 2


@pytest.fixture(scope="module")
def stack(embedded_services: EmbeddedServices) -> Iterator[Stack]:
    url = database.create(embedded_services.database_url, "bad_input")
    with running_stack(
        url,
        embedded_services.redis_url,
        METRICS_PORT=str(free_range(100)),
        SESSION_AUDIO_S_MAX=str(SESSION_AUDIO_S_MAX),
    ) as running:
        running.start_all()
        pids = {process: running.processes[process].pid for process in running.processes}
        yield running
        # No input of this module ended a process or caused an internal error.
        assert {each: running.processes[each].pid for each in running.processes} == pids
        logs = [line for process in running.processes.values() for line in process.lines]
        # uvicorn answers text that is not UTF-8 with its own.
        expected = "Invalid UTF-8 sequence received from client."
        assert [x for x in logs if "Traceback" in x and expected not in x] == []


@pytest.fixture(scope="module", autouse=True)
def slow_head(stack: Stack) -> SlowHead:
    """It takes its time while the other tests run."""
    slow = SlowHead(stack.ports["gateway"])
    slow.start()
    return slow


@asynccontextmanager
async def unharmed(stack: Stack) -> AsyncIterator[None]:
    """A session beside it gets its text."""
    audio = spoken(7_000, digits=(3, 3))
    async with talking(stack) as other:
        await other.start()
        pcm = audio.pcm.tobytes()
        await other.chunk(0, pcm[: len(pcm) // 4 * 2])
        yield
        await other.chunk(1, pcm[len(pcm) // 4 * 2 :])
        assert (await other.finish())["text"] == audio.text


async def close_code(socket: Any) -> int | None:
    async with asyncio.timeout(30):
        while True:
            try:
                await socket.recv()
            except websockets.ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd is not None else None


# --------------------------------------------------------------------------------------- messages


def chunk_text(session_id: str, index: str, more: str = "") -> str:
    return (
        f'{{"action":"chunk","session_id":"{session_id}","chunk_index":{index},"audio_data":""'
        f"{more}}}"
    )


@pytest.mark.parametrize(
    "text",
    [
        chunk_text("SESSION", "true"),
        chunk_text("SESSION", "0.0"),
        chunk_text("SESSION", "-1"),
        chunk_text("SESSION", "1e400"),
        chunk_text("SESSION", "NaN"),
        chunk_text("SESSION", "9" * 5_000),
        chunk_text("SESSION", "0", ',"chunk_index":0'),
        chunk_text("../../etc/passwd", "0"),
        chunk_text("'; DROP TABLE asr_sessions; --", "0"),
        chunk_text("a\\u0000", "0"),
        chunk_text("\\ud800", "0"),
        '{"a":' * 20_000,
        '{"action":"finish","session_id":null}',
        "[]",
        "null",
        "",
    ],
)
async def test_invalid_messages(stack: Stack, text: str) -> None:
    async with talking(stack) as talk:
        await talk.start()
        assert (await talk.ask(text.replace("SESSION", talk.session_id)))["code"] == "bad_message"
        assert (await talk.chunk(0, b"\0\0"))["status"] == "received"


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": "\0"},
        {"user_id": "\ud800"},
        {"language": "x" * 33},
        {"sample_rate": 0},
        {"sample_rate": True},
        {"hotwords": ["one", None]},
        {"hotwords": ["one"] * 201},
        {"partials": 1},
        {"mode": ["auto"]},
        {"resume_token": 5},
        {"session_id": "a" * 129},
    ],
)
async def test_a_start_with_a_wrong_field(stack: Stack, fields: dict[str, Any]) -> None:
    async with talking(stack) as talk:
        assert (await talk.start(**fields))["code"] == "bad_message"
        assert (await talk.start())["status"] == "session_started"


async def test_text_that_is_not_utf_8_closes_with_1007(stack: Stack) -> None:
    async with unharmed(stack), talking(stack) as talk:
        await talk.start()
        await talk.socket.send(b'{"action":"\xff\xfe"}', text=True)
        assert await close_code(talk.socket) == 1007


async def test_a_fragmented_message_over_the_limit_closes_with_1009(stack: Stack) -> None:
    async with unharmed(stack):
        codes = [await _code_of_fragments_over_the_limit(stack) for _ in range(10)]
    assert codes == [1009] * 10


async def _code_of_fragments_over_the_limit(stack: Stack) -> int | None:
    async with talking(stack) as talk:
        await talk.start()

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(MESSAGE_BYTES_MAX // (1 << 16) + 9):
                yield bytes(1 << 16)

        sending = asyncio.create_task(talk.socket.send(pieces()))
        code = await close_code(talk.socket)
        await asyncio.gather(sending, return_exceptions=True)
    return code


async def test_compression_is_not_negotiated(stack: Stack) -> None:
    async with open_socket(stack.url(), compression="deflate", proxy=None) as compressing:
        assert compressing.response is not None
        assert "Sec-WebSocket-Extensions" not in compressing.response.headers
        # RSV1: "this frame is compressed".
        compressing.transport.write(b"\xc1\x85\0\0\0\0" + b"\x4a\x4c\x4c\x4c\0")
        assert await close_code(compressing) == 1002


async def test_a_chunk_for_another_clients_session(stack: Stack) -> None:
    audio = spoken(7_001, digits=(3, 3))
    async with talking(stack) as victim, talking(stack) as thief:
        await victim.start()
        assert (await thief.ask(chunk_message(victim.session_id, 0, b"\0\0")))["type"] == "error"
        await thief.start()
        stolen = await thief.ask(chunk_message(victim.session_id, 0, bytes(64_000)))
        assert stolen["type"] == "error"
        ended = await thief.ask({"action": "finish", "session_id": victim.session_id})
        assert ended["type"] == "error"
        async with talking(stack) as second:
            second.session_id = victim.session_id
            assert (await second.start())["code"] == "session_exists"
            wrong = await second.start(resume_token="x" * 43)
            assert wrong["code"] == "not_resumable"
        await victim.chunk(0, audio.pcm.tobytes())
        assert (await victim.finish())["text"] == audio.text


# ------------------------------------------------------------------------------------------ audio


def wav(
    *,
    coding: int = 1,
    channels: int = 1,
    rate_hz: int = 16_000,
    block_align: int | None = None,
    bits: int = 16,
    pcm: bytes = bytes(64),
) -> bytes:
    align = channels * bits // 8 if block_align is None else block_align
    fmt = struct.pack(
        "<HHIIHH", coding, channels, rate_hz, rate_hz * align % (1 << 32), align & 0xFFFF, bits
    )
    return b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + fmt + b"data\xff\xff\xff\xff" + pcm


@pytest.mark.parametrize(
    "data",
    [
        wav(rate_hz=0),
        wav(rate_hz=1),
        wav(channels=0),
        wav(channels=65_535, block_align=65_535),
        wav(bits=0),
        wav(coding=85),
        b"no audio, but a text " * 1_000,
        b"\x89PNG\r\n\x1a\n" + random.Random(4).randbytes(20_000),
        random.Random(5).randbytes(30_000),
        *(magic + random.Random(1).randbytes(8_000) for magic in (b"fLaC", b"ID3\4\0\0")),
        b"\x1a\x45\xdf\xa3" + random.Random(2).randbytes(8_000),
        b"OggS\0\2" + random.Random(3).randbytes(8_000),
    ],
    ids=lambda data: repr(data[:4]),
)
async def test_invalid_audio(stack: Stack, data: bytes) -> None:
    assert await problem_of(stack, data) == "bad_audio"


async def problem_of(stack: Stack, *chunks: bytes) -> str:
    """The first error of a session of these chunks."""
    async with talking(stack) as talk:
        await talk.start()
        for index, data in enumerate(chunks):
            await talk.socket.send(chunk_message(talk.session_id, index, data))
        await talk.socket.send(json.dumps({"action": "finish", "session_id": talk.session_id}))
        while (answer := await talk.answer())["type"] != "error":
            assert answer["type"] != "final_result"
        return str(answer["code"])


async def test_a_wav_without_an_end_is_a_stream(stack: Stack) -> None:
    audio = spoken(7_002, digits=(3, 3))
    async with talking(stack) as talk:
        await talk.start()
        await talk.chunk(0, wav(pcm=audio.pcm.tobytes()))
        assert (await talk.finish())["text"] == audio.text


@pytest.mark.parametrize("container", ["webm", "ogg", "flac", "mp3"])
async def test_a_small_file_of_long_silence_is_audio_too_long(stack: Stack, container: str) -> None:
    silence = np.zeros(16_000 * (SESSION_AUDIO_S_MAX + 30), np.int16)
    bomb = encode(silence, container, 16_000 if container == "flac" else 48_000, 1)
    assert len(bomb) < 800_000
    async with unharmed(stack):
        assert await problem_of(stack, bomb) == "audio_too_long"


@pytest.mark.parametrize(
    "playlist", [b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"]
)
async def test_playlists_are_not_followed(stack: Stack, playlist: bytes) -> None:
    url = stack.url().removesuffix("/ws/asr")
    async with open_socket(url, compression=None, proxy=None) as funasr:
        await funasr.send(json.dumps({"mode": "offline", "wav_format": "mp3", "wav_name": "x"}))
        await funasr.send(playlist * 400)
        await funasr.send(json.dumps({"is_speaking": False}))
        async with asyncio.timeout(30):
            answer = json.loads(await funasr.recv())
    assert answer["error"].startswith("bad_audio")
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.m3u8"\r\n\r\n'
    form += (
        playlist
        + b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b--'
    )
    assert await asyncio.to_thread(upload, stack, form) == 400


# ------------------------------------------------------------------------------------------- HTTP


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\0\1\2\3\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: rot13\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=range(7),
)
def test_input_that_is_not_http(stack: Stack, request_bytes: bytes) -> None:
    assert status_of(stack, request_bytes) in (0, 400)


@pytest.mark.parametrize(
    "piece", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "%ff", "%F0%9F%8E%A4"]
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_invalid_ids(stack: Stack, method: str, piece: str) -> None:
    assert stack.get(f"/api/v1/session/{piece}", method=method).status in (404, 422)


@pytest.mark.parametrize(
    "body", [b"", b"--", b"--b\r\n\r\n", b"--b--", bytes(5_000), b"--b\r\nX\r\n\r\n\r\n--b--\r\n"]
)
def test_an_invalid_form(stack: Stack, body: bytes) -> None:
    assert upload(stack, body) == 400


def test_invalid_requests_are_counted(stack: Stack) -> None:
    def counted(reason: str) -> float:
        series = f'asr_gateway_bad_requests_total{{reason="{reason}"}} '
        (line,) = (x for x in stack.get("/metrics").body.splitlines() if x.startswith(series))
        return float(line.removeprefix(series))

    before = counted("not_http"), counted("invalid")
    assert status_of(stack, b"GET / HTTP/9\r\n\r\n") == 400
    assert stack.get("/api/v1/history?limit=-1").status == 422
    assert (counted("not_http"), counted("invalid")) == (before[0] + 1, before[1] + 1)


def test_a_body_shorter_than_declared(stack: Stack) -> None:
    assert upload(stack, b"--b\r\n", 100_000) in (0, 400)


def test_an_invalid_charset(stack: Stack) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nx\r\n--b--\r\n'
    for charset in (b"undefined", b"hex", b"idna", b"no-such", b'"'):
        head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += b"Content-Type: multipart/form-data; boundary=b; charset=" + charset
        request = head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        assert status_of(stack, request) == 400


async def test_an_invalid_origin(stack: Stack) -> None:
    head = b"GET /ws/asr HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    for origin in (b"http://[", b"http://[::1", b"\xff", b"null"):
        request = head + b"Origin: " + origin + b"\r\n\r\n"
        assert await asyncio.to_thread(status_of, stack, request) == 403


async def test_an_invalid_upgrade(stack: Stack) -> None:
    head = b"GET /ws/asr HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    for more in (b"", b"Sec-WebSocket-Key: x\r\n", b"Sec-WebSocket-Version: 99\r\n"):
        status = await asyncio.to_thread(status_of, stack, head + more + b"\r\n")
        assert status in (400, 426)
    async with talking(stack) as talk:
        assert (await talk.start())["status"] == "session_started"


@pytest.mark.parametrize(
    ("more", "statuses"),
    [
        (b"Content-Length: 5\r\n\r\nhello", (400,)),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
        (b"Cookie: " + b"c" * 9_000 + b"\r\n\r\n", (400, 431)),
        (b"".join(b"X-%d: x\r\n" % n for n in range(130)) + b"\r\n", (400, 431)),
    ],
)
def test_an_upgrade_that_the_library_does_not_take(
    stack: Stack, more: bytes, statuses: tuple[int, ...]
) -> None:
    head = b"GET /ws/asr HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    assert status_of(stack, head + more) in statuses


async def test_a_reason_that_no_close_frame_holds_is_cut(stack: Stack) -> None:
    url = f"{stack.url().removesuffix('/ws/asr')}/vosk?model={'z' * 100}"
    async with open_socket(url, proxy=None) as vosk:
        await vosk.send(bytes(3_200))
        await vosk.wait_closed()
    assert vosk.close_code == 1008
    assert "z" * 50 in (vosk.close_reason or "")


# ----------------------------------------------------------------------------- all of it, at once


def test_fuzzing(stack: Stack) -> None:
    """python -m tools.lab.fuzz, for some seconds."""
    result = run(Target.of(stack), seed=3, bus=6_000, edge=400)
    assert result.problems == []
    # Of what a connection was to send, what came after the gateway had closed it was not sent.
    assert result.bus == 6_000 and 200 < result.edge <= 400
    assert sum(result.counted.values()) > 5_000 and result.sessions >= 4
    assert result.statuses and result.closes


def test_a_client_that_answers_no_ping_is_closed(stack: Stack) -> None:
    port = free_port()
    settings = {**stack.environment, "PORT": str(port), "METRICS_PORT": "0"}
    with LoggedProcess("tests.integration.impatient_gateway", **settings):
        wait_until(lambda: ask(f"http://127.0.0.1:{port}/readyz").status == 200, "ready")
        silent = SilentClient(port)
        silent.start()
        silent.join(2 * PING_S + 30)
    assert not silent.is_alive()
    assert silent.received.endswith(b"\x03\xf3keepalive ping timeout")  # 1011
    assert silent.lasted_s >= 2 * PING_S


def test_headers_sent_byte_by_byte_end_at_the_deadline(stack: Stack, slow_head: SlowHead) -> None:
    slow_head.join(HEAD_S_MAX + 30)
    assert not slow_head.is_alive()
    assert slow_head.answer.startswith(b"HTTP/1.1 408 ") and slow_head.lasted_s >= HEAD_S_MAX
    assert "asr_gateway_late_heads_total 1.0" in stack.get("/metrics").body
