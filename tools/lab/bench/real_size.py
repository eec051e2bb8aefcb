"""Clients of FunASR's protocol that one machine serves in real time with a model of real size: a
Paraformer of paraformer-zh's dimensions with random weights, in int8.

Each client sends the same 18 s of speech and waits for its last text. FunASR's model one by one is
the reference for the workers' speed.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from asr_worker.recognizer import funasr_loading
from asr_worker.recognizer.loading import build
from asr_worker.recognizer.protocol import Utterance
from asr_worker.settings import WorkerSettings
from tools.lab.bench.figures import Figure
from tools.lab.digit_speech import VOICES, random_digits, speak
from tools.lab.harness.stack import supervised_stack
from tools.lab.loadtest.figures import percentile
from tools.lab.random_paraformer import NetworkSize, save
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

Mode = Literal["offline", "2pass"]

BLOCKS = (50, 16)
"""Layers of the encoder and of the decoder."""
TOKENS_PER_FRAME = 0.27
SPEECH_S = 18.0
FRAME_MS = 60
RAMP_S = 4.0
REPLY_S_MAX = 60.0
WORKERS = 2
CLIENTS: dict[Mode, int] = {"offline": 24, "2pass": 12}
LAST_TEXT_MS_MAX = 1_000.0
PROMISED_RATIO = 2.5
UTTERANCE_S = 3.5
BATCH = 8
BATCHES = 3


def speech(seed: int) -> bytes:
    """``SPEECH_S`` of numbers with pauses between them."""
    rng = random.Random(seed)
    pause = np.zeros(int(0.9 * SAMPLE_RATE_HZ), np.int16)
    spoken = pause
    while len(spoken) < SPEECH_S * SAMPLE_RATE_HZ:
        digits = speak(random_digits(rng, 6), VOICES[seed % len(VOICES)], rng)
        spoken = np.concatenate([spoken, digits, pause])
    return spoken[: int(SPEECH_S * SAMPLE_RATE_HZ)].astype("<i2").tobytes()


async def last_text_ms(url: str, mode: Mode, seed: int, wait_s: float) -> float | None:
    """Time from the end of the speech to the last text; None if the client was refused."""
    await asyncio.sleep(wait_s)
    pcm = speech(seed)
    frame = FRAME_MS * SAMPLE_RATE_HZ // 1000 * BYTES_PER_SAMPLE
    start = {"mode": mode, "chunk_size": [5, 10, 5], "chunk_interval": 10, "wav_name": f"{seed}"}
    try:
        async with connect(url, proxy=None, ping_interval=None) as socket:
            await socket.send(json.dumps({**start, "is_speaking": True}))
            last = asyncio.create_task(_last(socket))
            began_s = time.monotonic()
            for number, begin in enumerate(range(0, len(pcm), frame), 1):
                await socket.send(pcm[begin : begin + frame])
                due_s = began_s + number * FRAME_MS / 1000
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            ended_s = time.monotonic()
            await socket.send('{"is_speaking": false}')
            return 1000 * (await asyncio.wait_for(last, REPLY_S_MAX) - ended_s)
    except InvalidStatus:
        return None


async def _last(socket: ClientConnection) -> float:
    text = ""
    async for message in socket:
        reply = json.loads(message)
        text += reply.get("text", "")
        if reply.get("is_final"):
            break
    assert text, "no text"
    return time.monotonic()


async def load(url: str, mode: Mode, clients: int) -> list[float | None]:
    calls = (last_text_ms(url, mode, seed, RAMP_S * seed / clients) for seed in range(clients))
    return await asyncio.gather(*calls)


def speeds(directory: Path) -> tuple[float, float]:
    """Seconds of audio for a second of processor time: the worker's recogniser in int8 with
    batches, and FunASR one by one."""
    torch.set_num_threads(1)
    pcm = speech(1)[: int(UTTERANCE_S * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE]
    recognizer = build(WorkerSettings(asr_model=str(directory), asr_precision="int8"))
    recognizer.recognize([Utterance(pcm=pcm)])
    began_s = time.process_time()
    for batch in repeat([Utterance(pcm=pcm)] * BATCH, BATCHES):
        recognizer.recognize(batch)
    ours = BATCH * BATCHES * UTTERANCE_S / (time.process_time() - began_s)
    model = funasr_loading.auto_model(
        directory, device="cpu", ncpu=1, disable_update=True, disable_pbar=True, disable_log=True
    )
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    model.generate(input=samples)
    began_s = time.process_time()
    for _ in range(BATCHES):
        model.generate(input=samples)
    return ours, BATCHES * UTTERANCE_S / (time.process_time() - began_s)


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        size = NetworkSize(encoder_blocks=BLOCKS[0], decoder_blocks=BLOCKS[1])
        save(directory, size, tokens_per_frame=TOKENS_PER_FRAME, spread=0.0)
        ours, theirs = speeds(directory)
        settings = {"ASR_MODEL": folder, "ASR_PRECISION": "int8", "LOG_LEVEL": "error"}
        found: dict[Mode, list[float | None]] = {}
        with supervised_stack(settings, workers=WORKERS) as stack:
            url = stack.url().rsplit("/ws", 1)[0] + "/"
            for mode, clients in CLIENTS.items():
                found[mode] = asyncio.run(load(url, mode, clients))
    figures = [
        Figure(
            what="a worker with Paraformer of 220 M parameters in int8, batches of 8, over FunASR's"
            " model one by one",
            value=ours / theirs,
            unit="×",
            reference=f"{ours:.1f} × and {theirs:.1f} × real time on one core",
            at_least=PROMISED_RATIO,
        )
    ]
    for mode, clients in CLIENTS.items():
        served = [each for each in found[mode] if each is not None]
        figures.append(
            Figure(
                what=f"end of {SPEECH_S:.0f} s of speech to its last text (p95), {clients} clients"
                f" of FunASR's protocol, mode {mode}, {WORKERS} such workers",
                value=percentile(served, 95) if len(served) == clients else float("inf"),
                unit="ms",
                reference=f"{len(served)} of {clients} admitted",
                at_most=LAST_TEXT_MS_MAX,
            )
        )
    return figures
