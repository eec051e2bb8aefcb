"""Processor time of a gateway for a chunk of audio: one client that sends a chunk at a time, and a
crowd that speaks in real time.

The floor of the same run is a bare echo of the same messages by the same WebSocket library, and
the speech detection of the same frames by the bare network. ``--against DIRECTORY`` measures
another checkout in turn.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from websockets.asyncio.client import ClientConnection, connect

from gateway.audio.silero import CONTEXT_SAMPLES, STATE_UNITS, SileroNetwork, model_path
from gateway.audio.timeline import FRAME_SAMPLES
from tools.lab.bench.figures import Figure
from tools.lab.bench.peers import cpu_s, running
from tools.lab.bench.worker import utterances
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import ROOT
from tools.lab.harness.stack import ADMITS_ALL, Stack
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

CHUNK_MS = 200
CHUNKS = 1_500
CROWD = 300
WARM_UP_S = 2.0
MEASURED_S = 6.0
ROUNDS = 5
"""All servers run at the same time and are measured in turn, this often. A shared machine changes
its speed from minute to minute, so ratios are taken within a round, and their median counts."""
OPEN_TIMEOUT_S = 20.0
BATCH_CHUNKS = 75
"""Chunks in one call of the network: of a crowd of 300, those of a turn of 50 ms."""
DETECTION_ROUNDS = 300
AGAINST: Path | None = None
SETTINGS = {
    "ASR_MODEL": "fake:1ms",
    "LOG_LEVEL": "error",
    **ADMITS_ALL,
}
PROMISED_CROWD_RATIO = 1.6
PROMISED_ALONE_RATIO = 0.5

ECHO = """
import asyncio, contextlib, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

async def echo(connection):
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), compression=None, backlog=2048):
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one server: microseconds of processor time for a chunk, and milliseconds to its answer."""

    alone_us: float
    alone_ms: float
    crowd_us: float


@dataclass(frozen=True, slots=True)
class Round:
    """The costs of all servers, measured one after the other."""

    echo: Cost
    ours: Cost
    detection_us: float
    """The bare network, one chunk in a call …"""
    crowd_detection_us: float
    """… and for each of ``BATCH_CHUNKS``."""
    other: Cost | None = None
    """The gateway of ``AGAINST``."""

    @property
    def alone_us(self) -> float:
        """Of our gateway, less the speech detection."""
        return max(0.0, self.ours.alone_us - self.detection_us)

    @property
    def other_alone_us(self) -> float:
        assert self.other is not None
        return self.other.alone_us - self.detection_us

    @property
    def crowd_ratio(self) -> float:
        """Our gateway over the floor, in a crowd."""
        return self.ours.crowd_us / (self.echo.crowd_us + self.crowd_detection_us)


# ---------------------------------------------------------------------------------------- the audio


def encoded_chunks() -> list[str]:
    """Speech in slices of ``CHUNK_MS``, as base64."""
    pcm = b"".join(utterance.pcm for utterance in utterances(20))
    size = CHUNK_MS * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE // 1000
    whole = len(pcm) // size * size
    return [base64.b64encode(pcm[at : at + size]).decode() for at in range(0, whole, size)]


def message_of(session: str, index: int, audio: list[str]) -> str:
    message = {
        "action": "chunk",
        "session_id": session,
        "chunk_index": index,
        "audio_data": audio[index % len(audio)],
    }
    return json.dumps(message)


# -------------------------------------------------------------------------------------- the clients


@contextlib.asynccontextmanager
async def client(url: str, session: str, *, starts: bool) -> AsyncIterator[ClientConnection]:
    deadline_s = time.monotonic() + OPEN_TIMEOUT_S
    while True:
        try:
            socket = await connect(url, compression=None, proxy=None)
            break
        except OSError:
            assert time.monotonic() < deadline_s, f"{url} does not answer"
            await asyncio.sleep(0.05)
    async with socket:
        if starts:
            start = {"action": "start", "session_id": session, "mode": "stream"}
            await socket.send(json.dumps(start))
            await socket.recv()
        yield socket


async def wait_for(url: str) -> None:
    async with client(url, "", starts=False):
        pass


async def alone_ms(url: str, audio: list[str], *, starts: bool) -> float:
    """One client; each chunk follows the answer to the one before. Median time to the answer."""
    session, times_ms = str(uuid.uuid4()), []
    async with client(url, session, starts=starts) as socket:
        for index in range(CHUNKS):
            text = message_of(session, index, audio)
            began_s = time.perf_counter()
            await socket.send(text)
            while json.loads(await socket.recv()).get("chunk_index") != index:
                pass  # A result.
            times_ms.append((time.perf_counter() - began_s) * 1000)
    return statistics.median(times_ms)


async def crowd_us(
    url: str, audio: list[str], taken_s: Callable[[], float], *, starts: bool
) -> float:
    """``CROWD`` clients that speak in real time; processor time of the server for a chunk."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time() + 3.0
    end_s = begin_s + WARM_UP_S + MEASURED_S
    sent = 0

    async def read(socket: ClientConnection) -> None:
        async for _ in socket:
            pass

    async def speak(number: int) -> None:
        nonlocal sent
        session = str(uuid.uuid4())
        await asyncio.sleep(2.0 * number / CROWD)
        async with client(url, session, starts=starts) as socket:
            reading = asyncio.create_task(read(socket))
            due_s, index = begin_s + CHUNK_MS / 1000 * number / CROWD, 0
            while due_s < end_s:
                await asyncio.sleep(due_s - loop.time())
                await socket.send(message_of(session, index, audio))
                sent += 1
                index += 1
                due_s += CHUNK_MS / 1000
            reading.cancel()

    async def measure() -> float:
        await asyncio.sleep(begin_s + WARM_UP_S - loop.time())
        before_s, sent_before = taken_s(), sent
        await asyncio.sleep(end_s - 0.5 - loop.time())
        return (taken_s() - before_s) / (sent - sent_before) * 1e6

    measuring = asyncio.create_task(measure())
    await asyncio.gather(*(speak(number) for number in range(CROWD)))
    return await measuring


def cost(url: str, process: psutil.Process, starts: bool, audio: list[str]) -> Cost:
    before_s = cpu_s(process)
    median_ms = asyncio.run(alone_ms(url, audio, starts=starts))
    alone_us = (cpu_s(process) - before_s) / CHUNKS * 1e6
    return Cost(
        alone_us=alone_us,
        alone_ms=median_ms,
        crowd_us=asyncio.run(crowd_us(url, audio, lambda: cpu_s(process), starts=starts)),
    )


# -------------------------------------------------------------------------------------- the servers

Server = tuple[str, psutil.Process, bool]
"""URL, process, and whether its clients must start a session."""


@contextlib.contextmanager
def gateway(checkout: Path) -> Iterator[Server]:
    """The whole system of ``checkout``, with a recogniser that takes no time."""
    settings = {"PORT": str(free_port()), **SETTINGS}
    stack = Stack(settings, supervised=True, checkout=checkout)
    try:
        stack.start_all()
        (process,) = stack.living("gateway")
        yield stack.url(), process, True
    finally:
        stack.stop()


@contextlib.contextmanager
def echo() -> Iterator[Server]:
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    with running("-c", ECHO, str(port)) as process:
        asyncio.run(wait_for(url))
        yield url, process, False


def detection_us(audio: list[str], streams: int) -> float:
    """The bare network's time for the frames of one chunk, ``streams`` chunks in a call."""
    network = SileroNetwork(model_path())
    pcm = np.frombuffer(b"".join(map(base64.b64decode, audio)), "<i2")
    frames = pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    # 6 frames of 32 ms in one chunk of 200 ms, and 7 in every fourth.
    counts = [6 + (number % 4 == 0) for number in range(streams)]
    contexts = np.zeros((streams, CONTEXT_SAMPLES), np.int16)
    state = np.zeros((2, streams, STATE_UNITS), np.float32)
    taken_s, chunks = 0.0, 0
    for turn in range(DETECTION_ROUNDS):
        if streams == 1:
            counts = [6 + (turn % 4 == 0)]
        samples = np.take(frames, range(turn, turn + sum(counts)), axis=0, mode="wrap")
        began_s = time.process_time()
        network.run(samples, contexts, counts, state)
        taken_s += time.process_time() - began_s
        chunks += streams
    return taken_s / chunks * 1e6


# -------------------------------------------------------------------------------------- the figures


def measure() -> list[Figure]:
    audio = encoded_chunks()
    checkouts = [ROOT, *([AGAINST] if AGAINST is not None else [])]
    with contextlib.ExitStack() as exits:
        servers = [exits.enter_context(each) for each in (echo(), *map(gateway, checkouts))]
        return figures([measured_round(servers, audio) for _ in range(ROUNDS)])


def measured_round(servers: Sequence[Server], audio: list[str]) -> Round:
    echo_cost, ours, *others = (cost(*server, audio) for server in servers)
    return Round(
        echo=echo_cost,
        ours=ours,
        detection_us=detection_us(audio, 1),
        crowd_detection_us=detection_us(audio, BATCH_CHUNKS),
        other=others[0] if others else None,
    )


def median_of(rounds: Sequence[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(map(value, rounds))


def figures(rounds: Sequence[Round]) -> list[Figure]:
    middle = partial(median_of, rounds)
    against = rounds[0].other is not None
    alone_other = crowd_other = ""
    if against:
        ratio = middle(lambda each: each.alone_us / each.other_alone_us)
        other_us = middle(lambda each: each.other_alone_us)
        alone_other = f"; {AGAINST}: {other_us:.0f} µs, of which this is {ratio:.2f}"
        crowd_other_us = middle(lambda each: each.other.crowd_us if each.other else 0.0)
        crowd_other = f"; {AGAINST}: {crowd_other_us:.0f} µs"
    alone_us = middle(lambda each: each.alone_us)
    return [
        Figure(
            what=f"a chunk of {CHUNK_MS} ms as JSON to its acknowledgement (p50)",
            value=middle(lambda each: each.ours.alone_ms),
            unit="ms",
            reference="bare websockets echo of the same message: "
            f"{middle(lambda each: each.echo.alone_ms):.2f} ms",
        ),
        Figure(
            what="a gateway's processor time for a chunk alone, less its speech detection",
            value=alone_us,
            unit="µs",
            reference=f"speech detection: {middle(lambda each: each.detection_us):.0f} µs; "
            f"echo: {middle(lambda each: each.echo.alone_us):.0f} µs{alone_other}",
            at_most=PROMISED_ALONE_RATIO * alone_us / ratio if against else None,
        ),
        Figure(
            what=f"a gateway's processor time for a chunk in a crowd of {CROWD}, over the floor",
            value=middle(lambda each: each.crowd_ratio),
            unit="×",
            reference=f"{middle(lambda each: each.ours.crowd_us):.0f} µs; "
            f"echo {middle(lambda each: each.echo.crowd_us):.0f} µs + speech detection "
            f"{middle(lambda each: each.crowd_detection_us):.0f} µs; rounds "
            f"{min(each.crowd_ratio for each in rounds):.2f} to "
            f"{max(each.crowd_ratio for each in rounds):.2f} ×{crowd_other}",
            at_most=PROMISED_CROWD_RATIO,
        ),
    ]
