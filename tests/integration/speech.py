"""Spoken digit strings with their texts, in every shape a client may send them."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tests.gateway.encoded_audio import encode
from tools.lab.digit_speech import VOICES, expected_text, random_digits, speak

Shape = Literal["raw", "sliced", "files"]
"""The three shapes of audio_data: headerless PCM, one file cut into slices, a file per chunk."""


@dataclass(frozen=True)
class Spoken:
    pcm: npt.NDArray[np.int16]
    text: str


def spoken(seed: int, *, digits: tuple[int, int] = (4, 12), voice: str | None = None) -> Spoken:
    """A random digit string, different for every seed, with pauses that end utterances."""
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
    """The audio as a client would send it. For shape ``raw`` the container is not used."""
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


def chunk_message(session_id: str, index: int, data: bytes) -> str:
    return json.dumps(
        {
            "action": "chunk",
            "session_id": session_id,
            "chunk_index": index,
            "audio_data": base64.b64encode(data).decode(),
        }
    )
