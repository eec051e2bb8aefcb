"""OpenAI's own Python client, unchanged, against the whole pipeline."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx2
import numpy as np
import openai
import psycopg
import pytest

from gateway.session.transcript import join_texts
from tests.integration.dialect_clients import funasr, funasr_start
from tests.integration.speech import Spoken, say, spoken
from tools.lab.encoded_audio import encode, encode_tracks
from tools.lab.harness.stack import Stack

LONG_FILE_S = 600


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="any", base_url=f"{stack.http_url()}/v1", max_retries=0, timeout=150
    ) as connected:
        yield connected


def file_of(audio: Spoken, container: str = "wav", rate_hz: int = 16_000) -> tuple[str, bytes]:
    return f"speech.{container}", encode(audio.pcm, container, rate_hz, 1)


@pytest.mark.parametrize(
    ("container", "rate_hz"), [("wav", 44_100), ("mp3", 44_100), ("webm", 48_000), ("flac", 16_000)]
)
async def test_a_file_of_any_container(
    client: openai.AsyncOpenAI, container: str, rate_hz: int
) -> None:
    audio = spoken(4_000)
    answer = await client.audio.transcriptions.create(
        model="whisper-1", file=file_of(audio, container, rate_hz)
    )
    assert answer.text == audio.text


async def test_the_answer_reports_which_channel_of_a_file_was_used(stack: Stack) -> None:
    """Opposite channels, whose mean is silence."""
    audio = spoken(4_012)
    file = encode_tracks([np.stack([audio.pcm, -audio.pcm])], "m4a", 48_000)
    message = "of 2 audio channels, the loudest alone was used: number "
    async with httpx2.AsyncClient(base_url=stack.http_url(), timeout=60) as http:
        for response_format in ("json", "srt"):
            fields = {"model": "whisper-1", "response_format": response_format}
            answer = await http.post(
                "/v1/audio/transcriptions", data=fields, files={"file": ("a.m4a", file)}
            )
            assert answer.status_code == 200
            if response_format == "json":
                assert answer.json()["text"] == audio.text
                assert answer.json()["warnings"] == json.loads(answer.headers["X-Warnings"])
            (warning,) = json.loads(answer.headers["X-Warnings"])
            assert warning["code"] == "loudest_only"
            assert warning["message"].startswith(message)


async def test_every_response_format(client: openai.AsyncOpenAI) -> None:
    audio = spoken(4_010, digits=(12, 12))
    file = file_of(audio)
    create = client.audio.transcriptions.create
    verbose = await create(
        model="demo",
        file=file,
        language="zh",
        response_format="verbose_json",
        timestamp_granularities=["segment", "word"],
    )
    assert verbose.text == audio.text and verbose.language == "zh"
    assert float(verbose.duration) == pytest.approx(len(audio.pcm) / 16_000, abs=0.01)
    segments = verbose.segments or []
    assert len(segments) >= 2
    assert join_texts(segment.text for segment in segments) == audio.text
    assert all(before.end <= after.start for before, after in pairwise(segments))
    words = verbose.words or []
    assert join_texts(word.word for word in words) == audio.text
    assert all(before.end <= after.start for before, after in pairwise(words))
    text = await create(model="demo", file=file, response_format="text")
    assert text == audio.text + "\n"
    srt = await create(model="demo", file=file, response_format="srt")
    assert srt.startswith("1\n00:00:0") and " --> " in srt
    vtt = await create(model="demo", file=file, response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:0")
    for subtitles in (srt, vtt):
        lines = re.findall(r"-->.*\n((?:.+\n)+)", subtitles)
        assert join_texts(" ".join(lines).split("\n")) == audio.text


async def test_a_file_in_json(stack: Stack) -> None:
    """As OpenRouter's clients and Open WebUI send it."""
    audio = spoken(4_015)
    data = base64.b64encode(file_of(audio)[1]).decode()
    body = {"model": "demo", "input_audio": {"data": data, "format": "wav"}, "temperature": 0}
    async with httpx2.AsyncClient(base_url=stack.http_url(), timeout=60) as http:
        answer = await http.post("/v1/audio/transcriptions/", json=body)
    assert answer.status_code == 200 and answer.json()["text"] == audio.text
    assert "warnings" not in answer.json()


async def test_a_streamed_answer(client: openai.AsyncOpenAI) -> None:
    audio = spoken(4_020, digits=(12, 12))
    events = [
        event
        async for event in await client.audio.transcriptions.create(
            model="demo", file=file_of(audio), stream=True
        )
    ]
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) >= 2 and "".join(deltas) == audio.text
    last = events[-1]
    assert last.type == "transcript.text.done" and last.text == audio.text


async def test_the_models(client: openai.AsyncOpenAI) -> None:
    assert "demo" in [model.id async for model in client.models.list()]


async def test_a_file_is_stored_like_a_session(stack: Stack, client: openai.AsyncOpenAI) -> None:
    audio = spoken(4_030)
    raw = await client.audio.transcriptions.with_raw_response.create(
        model="demo", file=file_of(audio)
    )
    session_id = raw.headers["x-session-id"]

    def row() -> tuple[Any, ...] | None:
        with psycopg.connect(stack.database_url) as connection:
            return connection.execute(
                "SELECT client, text, status FROM asr_sessions WHERE id = %s", [session_id]
            ).fetchone()

    async with asyncio.timeout(20):
        while (found := await asyncio.to_thread(row)) is None or found[2] != "completed":
            await asyncio.sleep(0.05)
    assert found == ("127.0.0.1 (openai)", audio.text, "completed")


@pytest.mark.parametrize(
    ("fields", "file", "status", "code"),
    [
        ({}, b"x" * 10_000, 400, "unsupported_format"),
        ({}, b"fLaC" + b"x" * 10_000, 400, "bad_audio"),
        ({"model": ""}, b"", 400, "missing_required_parameter"),
        ({"response_format": "xml"}, b"", 400, "invalid_value"),
        ({"temperature": "hot"}, b"", 400, "invalid_value"),
        ({"timestamp_granularities[]": "word"}, b"", 400, "empty_file"),
        ({"prompt": "long" * 20_000}, b"", 400, "bad_form"),
    ],
)
async def test_errors_in_the_shape_of_its_api(
    stack: Stack, fields: dict[str, str], file: bytes, status: int, code: str
) -> None:
    async with httpx2.AsyncClient(base_url=stack.http_url(), timeout=30) as http:
        answer = await http.post(
            "/v1/audio/transcriptions",
            data={"model": "demo", **fields},
            files={"file": ("a.flac", file)},
        )
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["code"] == code and error["message"]
        assert error["type"] == "invalid_request_error"


async def test_requests_without_a_form(stack: Stack) -> None:
    async with httpx2.AsyncClient(base_url=stack.http_url(), timeout=30) as http:
        path = "/v1/audio/transcriptions"
        assert (await http.post(path, content="a=b")).status_code == 415
        only_model = await http.post(path, data={}, files={"model": (None, "demo")})
        assert only_model.json()["error"]["param"] == "file"


async def test_a_file_declared_too_large_is_refused_before_it_is_sent(stack: Stack) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports["gateway"])
    writer.write(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: here\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % (1 << 40)
    )
    async with asyncio.timeout(20):
        assert (await reader.readline()).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()


def long_recording() -> Spoken:
    """Ten minutes: recordings that are right one by one, over and over in a random order."""
    rng = random.Random(5)
    clips = [spoken(2_800 + n) for n in range(24)]
    chosen: list[Spoken] = []
    while sum(len(clip.pcm) for clip in chosen) < LONG_FILE_S * 16_000:
        chosen.append(rng.choice(clips))
    gap = np.zeros(8_000, np.int16)
    pcm = np.concatenate([part for clip in chosen for part in (clip.pcm, gap)])
    return Spoken(pcm, join_texts(clip.text for clip in chosen))


async def test_a_long_file_goes_in_the_bulk_lane_while_people_speak(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    long = long_recording()
    said = [spoken(2_800 + n) for n in range(8)]
    buffer = io.BytesIO(encode(long.pcm, "mp3", 16_000, 1))
    uploading = asyncio.create_task(
        client.audio.transcriptions.create(model="demo", file=("long.mp3", buffer))
    )

    async def speak(n: int, audio: Spoken) -> str:
        if n % 2:
            url = f"ws://127.0.0.1:{stack.ports['gateway']}"
            return (await funasr(url, audio.pcm.tobytes(), funasr_start("2pass"))).text
        return (await say(stack.url(), audio))[1].text

    texts = await asyncio.gather(*(speak(n, audio) for n, audio in enumerate(said)))
    assert texts == [audio.text for audio in said]
    assert (await uploading).text == long.text
