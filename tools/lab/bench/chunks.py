"""Chunks of audio and their acknowledgements through a gateway, beside a bare echo of the same
messages by the same WebSocket library, each in a process of its own, one after the other."""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import time
import uuid

import psutil
from websockets.asyncio.client import ClientConnection, connect

from tools.lab.bench.figures import Figure
from tools.lab.bench.peers import cpu_s, running
from tools.ops.ports import free_port
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

CHUNK_MS = 200
CHUNKS = 1_500
OPEN_TIMEOUT_S = 20.0

ECHO = """
import asyncio, sys
from websockets.asyncio.server import serve

async def echo(connection):
    async for message in connection:
        await connection.send(message)

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), compression=None):
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


def chunks_of(pcm: bytes) -> list[bytes]:
    """``CHUNKS`` slices of ``CHUNK_MS``, going round ``pcm``."""
    size = CHUNK_MS * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE // 1000
    whole = len(pcm) // size
    return [pcm[size * (n % whole) : size * (n % whole + 1)] for n in range(CHUNKS)]


async def round_trips_ms(socket: ClientConnection, session: str, chunks: list[bytes]) -> float:
    """Median time from a chunk to what answers it."""
    times_ms = []
    for index, chunk in enumerate(chunks):
        message = {
            "action": "chunk",
            "session_id": session,
            "chunk_index": index,
            "audio_data": base64.b64encode(chunk).decode(),
        }
        text = json.dumps(message)
        began_s = time.perf_counter()
        await socket.send(text)
        while json.loads(await socket.recv()).get("chunk_index") != index:
            pass  # A result, or an acknowledgement that is not this one's.
        times_ms.append((time.perf_counter() - began_s) * 1000)
    return statistics.median(times_ms)


async def through_gateway(url: str, chunks: list[bytes]) -> float:
    async with connect(url, compression=None) as socket:
        session = str(uuid.uuid4())
        await socket.send(json.dumps({"action": "start", "session_id": session, "mode": "stream"}))
        await socket.recv()
        median_ms = await round_trips_ms(socket, session, chunks)
        await socket.send(json.dumps({"action": "finish", "session_id": session}))
        while json.loads(await socket.recv())["type"] != "final_result":
            pass
        return median_ms


async def through_echo(port: int, chunks: list[bytes]) -> float:
    deadline_s = time.monotonic() + OPEN_TIMEOUT_S
    while True:
        try:
            async with connect(f"ws://127.0.0.1:{port}", compression=None) as socket:
                return await round_trips_ms(socket, "echo", chunks)
        except OSError:
            assert time.monotonic() < deadline_s, "the echo server does not start"
            await asyncio.sleep(0.05)


def measure(url: str, gateway: psutil.Process, pcm: bytes) -> list[Figure]:
    chunks = chunks_of(pcm)
    before_s = cpu_s(gateway)
    gateway_ms = asyncio.run(through_gateway(url, chunks))
    gateway_us = (cpu_s(gateway) - before_s) / CHUNKS * 1e6
    port = free_port()
    with running("-c", ECHO, str(port)) as echo:
        asyncio.run(through_echo(port, chunks[:1]))
        before_s = cpu_s(echo)
        echo_ms = asyncio.run(through_echo(port, chunks))
        echo_us = (cpu_s(echo) - before_s) / CHUNKS * 1e6
    return [
        Figure(
            what=f"a chunk of {CHUNK_MS} ms as JSON to its acknowledgement (p50)",
            value=gateway_ms,
            unit="ms",
            reference=f"bare websockets echo of the same message: {echo_ms:.2f} ms",
        ),
        Figure(
            what="the same by the gateway's processor time, speech detection included",
            value=gateway_us,
            unit="µs",
            reference=f"the echo server's: {echo_us:.0f} µs",
        ),
    ]
