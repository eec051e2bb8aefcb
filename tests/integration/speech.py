"""Spoken digit strings with their texts, in every shape a client may send, and sessions of them."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asr_client import FinalResult, ServerBusyError, connect
from tools.lab.digit_speech import VOICES, expected_text, random_digits, speak
from tools.lab.encoded_audio import encode

ADMITTED_S_MAX = 60.0
"""From the first attempt to connect to the last one."""
PARTIALS_TRIES = 5
"""Sessions until one has partial results: a busy machine may keep a worker still until an utterance
has ended."""

Shape = Literal["raw", "sliced", "files"]
"""Shape of ``audio_data``: headerless PCM, one file cut into slices, or a file in each chunk."""


@dataclass(frozen=True)
class Spoken:
    pcm: npt.NDArray[np.int16]
    text: str


def spoken(seed: int, *, digits: tuple[int, int] = (4, 12), voice: str | None = None) -> Spoken:
    """A random digit string for each seed, with pauses that end utterances."""
    rng = random.Random(seed)
    voice = voice or VOICES[seed % len(VOICES)]
    string = random_digits(rng, rng.randint(*digits))
    pcm = speak(string, voice, rng, pause_every=5)
    return Spoken(pcm, expected_text(string, voice))


def slices(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


def chunks_of(
    audio: Spoken, shape: Shape, container: str, rate_hz: int, channels: int, chunk_ms: int
) -> list[bytes]:
    """The audio as a client would send it. Shape ``raw`` ignores the container."""
    if shape == "raw":
        return slices(audio.pcm.tobytes(), 32 * chunk_ms)
    if shape == "sliced":
        whole = encode(audio.pcm, container, rate_hz, channels)
        bytes_per_ms = len(whole) / (len(audio.pcm) / 16)
        return slices(whole, max(1, int(bytes_per_ms * chunk_ms)))
    pieces = [
        audio.pcm[place : place + 16 * chunk_ms]
        for place in range(0, len(audio.pcm), 16 * chunk_ms)
    ]
    return [encode(piece, container, rate_hz, channels) for piece in pieces]


async def say(url: str, audio: Spoken, **options: Any) -> tuple[str, FinalResult]:
    """Send ``audio`` in a session of its own, with ``connect``'s ``options``. A gateway that
    refuses it, because the machine is busy, is asked again.

    Returns:
        The session's id and its final result. Its text is the spoken one.
    """
    deadline_s = time.monotonic() + ADMITTED_S_MAX
    while True:
        try:
            async with connect(url, **options) as session:
                for chunk in chunks_of(audio, "raw", "", 16_000, 1, 200):
                    await session.send(chunk)
                await session.finish()
                final = await session.final()
        except ServerBusyError as refusal:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(refusal.retry_after_s or 1.0)
        else:
            assert final.text == audio.text
            return session.session_id, final


def chunk_message(session_id: str, index: int, data: bytes) -> str:
    return json.dumps(
        {
            "action": "chunk",
            "session_id": session_id,
            "chunk_index": index,
            "audio_data": base64.b64encode(data).decode(),
        }
    )
