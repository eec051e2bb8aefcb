"""Speech in many forms of files, and what an ``AudioInput`` makes of them."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from gateway.audio.audio_input import AudioInput
from gateway.audio.decoder_pool import DecoderPool
from gateway.audio.formats import AudioError
from gateway.audio.timeline import AudioDecoded
from tools.lab.digit_speech import speak
from tools.lab.encoded_audio import encode

SPEECH = speak("4711", "zh_mei", random.Random(2))
LOUD = np.where(SPEECH == 0, 1, SPEECH).astype("<i2")
HOUR_MS = 3_600_000
FILES = {
    "wav 8 kHz mono": encode(SPEECH, "wav", 8_000, 1),
    "wav 16 kHz mono": encode(SPEECH, "wav", 16_000, 1),
    "wav 16 kHz stereo": encode(SPEECH, "wav", 16_000, 2),
    "wav 44.1 kHz mono": encode(SPEECH, "wav", 44_100, 1),
    "wav 44.1 kHz stereo": encode(SPEECH, "wav", 44_100, 2),
    "webm": encode(SPEECH, "webm", 48_000, 1),
    "live webm": encode(SPEECH, "webm", 48_000, 1, live=True),
    "ogg": encode(SPEECH, "ogg", 48_000, 2),
    "flac": encode(SPEECH, "flac", 16_000, 1),
    "mp3": encode(SPEECH, "mp3", 16_000, 1),
    "mp3 44.1 kHz": encode(SPEECH, "mp3", 44_100, 2),
    **{name: encode(SPEECH, name, 16_000, 1) for name in ("m4a", "fragmented mp4", "wma")},
}
WAV = FILES["wav 16 kHz mono"]


def sliced(data: bytes, sizes: list[int]) -> list[bytes]:
    """``data`` in pieces of these sizes, over and over."""
    pieces: list[bytes] = []
    place = 0
    while place < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[place : place + size])
        place += size
    return pieces


def likeness(pcm: bytes) -> float:
    """Correlation of the loudness with that of the speech, in pieces of 50 ms. Encoders delay."""
    heard = np.frombuffer(pcm, "<i2")
    assert len(heard) > len(SPEECH) * 0.95
    found = []
    for delay in range(0, 2_400, 400):
        first, second = loudness(heard[delay:]), loudness(SPEECH)
        length = min(len(first), len(second))
        found.append(float(np.corrcoef(first[:length], second[:length])[0, 1]))
    return max(found)


def loudness(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    pieces = samples[: len(samples) // 800 * 800].reshape(-1, 800).astype(float)
    found: npt.NDArray[np.float64] = np.log(np.sqrt((pieces**2).mean(axis=1)) + 30)
    return found


async def feed_all(audio: AudioInput, data: bytes, size: int) -> list[AudioDecoded]:
    return [await audio.feed(piece) for piece in sliced(data, [size])]


async def heard(pool: DecoderPool, chunks: list[bytes]) -> tuple[bytes, list[AudioError]]:
    audio, pcm, errors = AudioInput(16_000, pool, HOUR_MS), b"", []
    for chunk in chunks:
        try:
            decoded = await audio.feed(chunk)
            pcm += decoded.tail + decoded.pcm
        except AudioError as error:
            pcm += error.pcm
            errors.append(error)
    try:
        pcm += (await audio.finish()).tail
    except AudioError as error:
        pcm += error.pcm
        errors.append(error)
    return pcm, errors


async def codes_of(pool: DecoderPool, data: bytes, size: int) -> list[str]:
    """Codes of the notices of one file."""
    audio = AudioInput(16_000, pool, HOUR_MS)
    decoded = await feed_all(audio, data, size)
    notices = [*(part.notices for part in decoded), (await audio.finish()).notices]
    return [notice.code for each in notices for notice in each]
