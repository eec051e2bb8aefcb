"""A long file over HTTP on one worker and on two, beside live sessions: the speed-up, the order of
the segments, and the latency added to live sessions. Workers have a fixed service time."""

from __future__ import annotations

import asyncio
import io
import random
import time
import uuid
import wave
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

import asr_client as c
from tools.lab.bench.figures import Figure
from tools.lab.digit_speech import VOICES, random_digits, speak
from tools.lab.harness.http import ask
from tools.lab.harness.stack import Stack, supervised_stack
from tools.lab.loadtest.figures import percentile
from wire.messages import SAMPLE_RATE_HZ

FILE_S = 1_800
PIECE_S = 60
"""Length of the speech that is repeated."""
SERVICE_MS = 100
"""Time of a worker for one utterance of any length."""
SPEAKERS = 4
UTTERANCE_S = 2.0
ALONE_S = 20.0
"""Live sessions run for this long before the file is sent."""
PROMISED_SPEED_UP = 1.8
PROMISED_ADDED_MS = 2.0 * SERVICE_MS
"""A worker does not interrupt an utterance, and one more may be on its way to it."""


@dataclass(frozen=True, slots=True)
class _Run:
    file_s: float
    segments: list[tuple[float, str]]
    """Start in seconds, and the fake recogniser's text, a hash of the audio."""
    alone_ms: float
    beside_ms: float
    """95th percentiles of the live sessions' latency, without and with the file."""


def wav_file(seconds: int) -> bytes:
    """Digit strings with pauses, as a WAV file."""
    rng = random.Random(3)
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < SAMPLE_RATE_HZ * PIECE_S:
        pieces.append(speak(random_digits(rng, 20), VOICES[0], rng, pause_every=5))
    piece = np.concatenate(pieces)[: SAMPLE_RATE_HZ * PIECE_S]
    samples = np.tile(piece, -(-seconds // PIECE_S))[: SAMPLE_RATE_HZ * seconds]
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return target.getvalue()


def transcribe(http_url: str, audio: bytes) -> tuple[float, list[tuple[float, str]]]:
    """The seconds that the file took, and its segments."""
    boundary = uuid.uuid4().hex
    fields = {"model": "whisper-1", "response_format": "verbose_json"}
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="long.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    body = "".join([*parts, head]).encode() + audio + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    url = f"{http_url}/v1/audio/transcriptions"
    began_s = time.perf_counter()
    answer = ask(url, "POST", headers, body, timeout_s=600)
    took_s = time.perf_counter() - began_s
    assert answer.status == 200, answer.body
    return took_s, [(float(one["start"]), str(one["text"])) for one in answer.body["segments"]]


async def live_sessions(url: str, until: asyncio.Event) -> list[float]:
    """Milliseconds from each utterance to its text, of all live sessions."""
    rng = random.Random(5)
    pcm = speak(random_digits(rng, 4), VOICES[1], rng, tail_ms=200).astype("<i2").tobytes()

    async def session(number: int) -> list[float]:
        found_ms = []
        await asyncio.sleep(UTTERANCE_S * number / SPEAKERS)
        async with c.connect(url, mode="chunk", user_id="bench") as connection:
            events = connection.events()
            while not until.is_set():
                began_s = time.perf_counter()
                await connection.send(pcm)
                while not isinstance(await anext(events), c.Segment):
                    pass
                took_s = time.perf_counter() - began_s
                found_ms.append(took_s * 1000)
                await asyncio.sleep(max(0.0, UTTERANCE_S - took_s))
            await connection.finish()
        return found_ms

    found = await asyncio.gather(*(session(number) for number in range(SPEAKERS)))
    return [ms for one in found for ms in one]


async def _measured(stack: Stack, audio: bytes) -> _Run:
    enough = asyncio.Event()
    speaking = asyncio.create_task(live_sessions(stack.url(), enough))
    await asyncio.sleep(ALONE_S)
    enough.set()
    alone_ms = await speaking
    done = asyncio.Event()
    speaking = asyncio.create_task(live_sessions(stack.url(), done))
    try:
        file_s, segments = await asyncio.to_thread(transcribe, stack.http_url(), audio)
    finally:
        done.set()
    beside_ms = await speaking
    return _Run(file_s, segments, percentile(alone_ms, 95), percentile(beside_ms, 95))


def run(workers: int, audio: bytes) -> _Run:
    settings = {
        "ASR_BATCH_JOBS_MAX": "1",
        "ASR_MODEL": f"fake:{SERVICE_MS}ms",
        "LOG_LEVEL": "error",
    }
    with supervised_stack(settings, workers=workers) as stack:
        return asyncio.run(_measured(stack, audio))


def measure() -> list[Figure]:
    audio = wav_file(FILE_S)
    one, two = run(1, audio), run(2, audio)
    assert one.segments == two.segments, "the segments differ"
    assert all(before < after for (before, _), (after, _) in pairwise(two.segments))
    minutes = f"{FILE_S / 60:.0f} minutes"
    return [
        Figure(
            what=f"a file of {minutes} over HTTP on two workers of {SERVICE_MS} ms, over one",
            value=one.file_s / two.file_s,
            unit="× the speed",
            reference=f"{len(two.segments)} segments, the same and in order; one worker "
            f"{one.file_s:.1f} s, two {two.file_s:.1f} s",
            at_least=PROMISED_SPEED_UP,
        ),
        Figure(
            what=f"latency that the file adds to {SPEAKERS} live sessions (p95)",
            value=max(0.0, two.beside_ms - two.alone_ms),
            unit="ms",
            reference=f"without the file {two.alone_ms:.0f} ms, beside it {two.beside_ms:.0f} ms;"
            f" on one worker {one.alone_ms:.0f} and {one.beside_ms:.0f} ms",
            at_most=PROMISED_ADDED_MS,
        ),
    ]
