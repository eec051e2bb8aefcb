"""OpenAI's own Python client, unchanged, in transcription sessions of its Realtime API."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import av
import numpy as np
import openai
import pytest
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from gateway.session.transcript import join_texts
from tests.integration.speech import Spoken, slices, spoken
from tests.integration.test_dialects import raw, sessions_by
from tools.lab.harness.stack import Stack, wait_until

APPEND_S = 0.05
SILENCE = np.zeros(16_000, np.int16)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{stack.http_url()}/v1") as connected:
        yield connected


async def update(connection: AsyncRealtimeConnection, **audio_input: Any) -> Any:
    session = {"type": "transcription", "audio": {"input": audio_input}}
    await connection.session.update(session=session)  # type: ignore[arg-type]
    return await until(connection, "session.updated")


async def until(connection: AsyncRealtimeConnection, kind: str) -> Any:
    async with asyncio.timeout(60):
        async for event in connection:
            assert event.type != "error", event
            if event.type == kind:
                return event
    raise AssertionError(f"closed before {kind}")


async def append(connection: AsyncRealtimeConnection, audio: bytes, rate_hz: int) -> None:
    for piece in slices(audio, int(rate_hz * APPEND_S) * 2):
        await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())


COMPLETED = "conversation.item.input_audio_transcription.completed"


async def test_speech_detection_ends_turns(stack: Stack, client: openai.AsyncOpenAI) -> None:
    said = [spoken(6_000 + n, digits=(3, 4)) for n in range(3)]
    audio = np.concatenate([part for each in said for part in (each.pcm, SILENCE)])
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        await update(connection, turn_detection={"type": "server_vad"})
        await append(connection, raw(Spoken(audio, ""), 24_000), 24_000)
        texts: list[str] = []
        while len(join_texts(texts)) < len(join_texts(each.text for each in said)):
            texts.append((await until(connection, COMPLETED)).transcript)
    assert join_texts(texts) == join_texts(each.text for each in said)

    def stored() -> bool:
        return any(
            (session["text"], session["status"]) == (join_texts(texts), "completed")
            for session in sessions_by(stack, "openai-realtime")
        )

    # Closing the connection is the end of the session, and no interruption.
    await asyncio.to_thread(wait_until, stored, "the session is stored")


async def test_the_client_commits(client: openai.AsyncOpenAI) -> None:
    said = [spoken(6_100 + n) for n in range(3)]
    async with client.realtime.connect(model="gpt-realtime-whisper") as connection:
        updated = await update(connection, format={"type": "audio/pcm", "rate": 16_000})
        assert updated.session.audio.input.turn_detection is None
        texts = []
        for each in said:
            await append(connection, raw(each), 16_000)
            await connection.input_audio_buffer.commit()
            texts.append((await until(connection, COMPLETED)).transcript)
    assert texts == [each.text for each in said]


@pytest.mark.parametrize(("kind", "codec"), [("pcmu", "pcm_mulaw"), ("pcma", "pcm_alaw")])
async def test_telephones(client: openai.AsyncOpenAI, kind: str, codec: str) -> None:
    said = spoken(6_200, voice="en_slt")
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = 8_000, "mono", "s16"
    pcm = np.frombuffer(raw(said, 8_000), np.int16)
    frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = 8_000
    encoded = b"".join(bytes(packet) for packet in encoder.encode(frame))
    async with client.realtime.connect() as connection:
        await update(connection, format={"type": f"audio/{kind}"}, turn_detection=None)
        await append(connection, encoded, 4_000)
        await connection.input_audio_buffer.commit()
        assert (await until(connection, COMPLETED)).transcript == said.text


async def test_another_language_in_the_middle(client: openai.AsyncOpenAI) -> None:
    """A session of ours has one language, so a second one follows on the same connection."""
    first, second = spoken(6_300, voice="en_slt"), spoken(6_301, voice="zh_mei")
    async with client.realtime.connect() as connection:
        await update(connection, transcription={"language": "en"}, turn_detection=None)
        await append(connection, raw(first, 24_000), 24_000)
        await connection.input_audio_buffer.commit()
        await update(connection, transcription={"language": "zh"}, turn_detection=None)
        await append(connection, raw(second, 24_000), 24_000)
        await connection.input_audio_buffer.commit()
        texts = [(await until(connection, COMPLETED)).transcript for _ in range(2)]
    assert texts == [first.text, second.text]
