"""Where each millisecond of processor time per second of audio goes: live sessions on the whole
system, the time of every process by the kernel's count, and that of the gateway's stages alone.

Live sessions, because batches grow with the load: what an idle system spends says nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tools.cli.serve import wait_until_ready
from tools.lab.bench.figures import Figure
from tools.lab.digit_speech import VOICES, expected_text, random_digits, speak
from tools.ops.ports import free_port
from tools.ops.stack import Stack
from wire.messages import SAMPLE_RATE_HZ

SESSIONS = 300
CHUNK_S = 0.2
WARM_UP_S = 12.0
"""From the first session's start to the measurement; sessions start one after the other in half
of it."""
MEASURED_S = 12.0
DIGITS = 5
"""Between two pauses, about."""
PROMISED_MS = 3.0
"""Of all processes but the load generator: 500 sessions on two cores leave 4 ms, and 0.8 of them
are for the generator."""
_PROCESS = "processor time of: "
_OTHERS = "honcho, supervisors"


@dataclass(frozen=True, slots=True)
class _Spoken:
    messages: list[str]
    """The protocol's, in order, one every ``CHUNK_S``."""
    text: str


def spoken(count: int, seconds: float) -> list[_Spoken]:
    """Digit strings with pauses, each of its own, that last ``seconds`` at least."""
    rng = random.Random(1)
    samples = int(SAMPLE_RATE_HZ * seconds)
    return [_spoken(rng, VOICES[n % len(VOICES)], samples) for n in range(count)]


def _spoken(rng: random.Random, voice: str, samples: int) -> _Spoken:
    digits, pcm = "", np.empty(0, np.int16)
    while len(pcm) < samples:
        digits += random_digits(rng, DIGITS)
        pcm = speak(digits, voice, rng, pause_every=DIGITS)
    data = pcm.astype("<i2").tobytes()
    session_id = str(uuid.UUID(int=rng.getrandbits(128)))
    size = int(SAMPLE_RATE_HZ * CHUNK_S) * 2
    start = {"action": "start", "session_id": session_id, "user_id": "bench"}
    messages = [json.dumps(start)]
    for index, place in enumerate(range(0, len(data), size)):
        audio = base64.b64encode(data[place : place + size]).decode()
        chunk = {"action": "chunk", "session_id": session_id, "chunk_index": index}
        messages.append(json.dumps({**chunk, "audio_data": audio}))
    messages.append(json.dumps({"action": "finish", "session_id": session_id}))
    return _Spoken(messages, expected_text(digits, voice))


async def speak_live(url: str, session: _Spoken, delay_s: float, sent: Counter[str]) -> str:
    """One session at the pace of speech; counts its messages and returns its text."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + delay_s
    await asyncio.sleep(delay_s)
    async with await _connected(url) as websocket:
        due_s = max(due_s, loop.time())
        answers = asyncio.create_task(_final_text(websocket))
        for message in session.messages:
            await asyncio.sleep(due_s - loop.time())
            await websocket.send(message)
            sent["messages"] += 1
            due_s += CHUNK_S
        return await answers


async def _connected(url: str) -> ClientConnection:
    """A WebSocket, after as many refusals as the gateway sees fit."""
    while True:
        try:
            return await connect(url, compression=None, proxy=None)
        except InvalidStatus as refusal:
            await asyncio.sleep(float(refusal.response.headers.get("Retry-After", 1)))


async def _final_text(websocket: ClientConnection) -> str:
    async for message in websocket:
        if '"final_result"' in message[:40]:
            return str(json.loads(message)["text"])
    return ""


def cpu_s_by_process(stack: Stack) -> dict[str, float]:
    """Processor time so far, by what runs. What a dead process took is its parent's."""
    times: defaultdict[str, float] = defaultdict(float)
    for process in [psutil.Process(stack.pid), *psutil.Process(stack.pid).children(recursive=True)]:
        try:
            command, taken = process.cmdline(), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        times[_what(command)] += taken.user + taken.system
    times["load generator"] = time.process_time()
    return times


def _what(command: list[str]) -> str:
    if command and command[0].startswith("postgres"):
        return "PostgreSQL"
    if any("valkey" in part for part in command[:1]):
        return "Valkey"
    if command[-1:] == ["asr_worker.service"]:
        return "asr_worker"
    if command[-2:-1] == ["-m"] and command[-1] in ("gateway", "broker", "persistence"):
        return command[-1]
    return _OTHERS


async def measure_live(
    url: str, sessions: list[_Spoken], cpu_s: Callable[[], dict[str, float]]
) -> tuple[dict[str, float], float, int]:
    """Milliseconds per second of audio by process; how many sessions spoke meanwhile (fewer, if
    the gateway refused some for a while); how many texts were right."""
    rng = random.Random(2)
    sent: Counter[str] = Counter()
    running = [
        asyncio.create_task(speak_live(url, session, rng.uniform(0, WARM_UP_S / 2), sent))
        for session in sessions
    ]
    await asyncio.sleep(WARM_UP_S)
    before, sent_before = cpu_s(), sent["messages"]
    await asyncio.sleep(MEASURED_S)
    after = cpu_s()
    audio_s = (sent["messages"] - sent_before) * CHUNK_S
    texts = await asyncio.gather(*running)
    right = sum(text == session.text for text, session in zip(texts, sessions, strict=True))
    taken_ms = {what: 1000 * (after[what] - before[what]) / audio_s for what in after}
    return taken_ms, audio_s / MEASURED_S, right


def measure() -> list[Figure]:
    sessions = spoken(SESSIONS, WARM_UP_S + MEASURED_S)
    with tempfile.TemporaryDirectory(prefix="asr-bench-") as directory:
        port = free_port()
        environment = {
            "ASR_MODEL": "demo",
            "ASR_THREADS": "1",
            "BROKER_BACKEND": f"ipc://{directory}/back",
            "BROKER_EVENTS": f"ipc://{directory}/events",
            "BROKER_FRONTEND": f"ipc://{directory}/front",
            "DATA_DIR": f"{directory}/data",
            "LOG_LEVEL": "error",
            "PORT": str(port),
        }
        stack = Stack(lambda _line: None, environment=environment)
        try:
            wait_until_ready(stack, f"http://127.0.0.1:{port}")
            url = f"ws://127.0.0.1:{port}/ws/asr"
            taken_ms, live, right = asyncio.run(
                measure_live(url, sessions, lambda: cpu_s_by_process(stack))
            )
        finally:
            stack.stop()
    return figures(taken_ms, live, right)


def figures(taken_ms: dict[str, float], live: float, right: int) -> list[Figure]:
    generator_ms = taken_ms.pop("load generator")
    rows = [
        Figure(what=f"{_PROCESS}{what}", value=value, unit="ms/s", reference="")
        for what, value in sorted(taken_ms.items(), key=lambda each: -each[1])
    ]
    total_ms = sum(taken_ms.values())
    cores = os.cpu_count() or 1
    total = Figure(
        what=f"all of it, a second of audio of {live:.0f} live sessions",
        value=total_ms,
        unit="ms/s",
        reference=f"{right} of {SESSIONS} texts right; load generator: {generator_ms:.2f} ms/s; "
        f"{cores} cores without it would carry {cores * 1000 / total_ms:,.0f} sessions, with it "
        f"{cores * 1000 / (total_ms + generator_ms):,.0f}",
        at_most=PROMISED_MS,
        points=tuple((float(n), row.value) for n, row in enumerate(rows)),
        labels=tuple(row.what.removeprefix(_PROCESS) for row in rows),
    )
    return [*rows, total]
