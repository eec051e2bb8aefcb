"""The whole system: latency that it adds to the model's time, and a gateway's memory for an idle
session."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time

import psutil

import asr_client as c
from asr_worker.recognizer.loading import build
from asr_worker.recognizer.protocol import Utterance
from asr_worker.settings import WorkerSettings
from tools.lab.bench.figures import Figure
from tools.lab.bench.worker import UTTERANCE_S, utterances
from tools.lab.harness.stack import ADMITS_ALL, supervised_stack

ROUND_TRIPS = 50
IDLE_SESSIONS = 300
PROMISED_ADDED_MS = 15.0
PROMISED_SESSION_KB = 150.0
SETTINGS = {
    "ASR_MODEL": "demo",
    "LOG_LEVEL": "error",
    **ADMITS_ALL,
}


def bare_call_ms(spoken: list[Utterance]) -> float:
    """Median time of the model alone for one utterance."""
    recognizer = build(WorkerSettings(asr_model="demo", asr_threads=1))
    times_ms = []
    for utterance in [spoken[0], *spoken]:
        began_s = time.perf_counter()
        recognizer.recognize([utterance])
        times_ms.append((time.perf_counter() - began_s) * 1000)
    return statistics.median(times_ms[1:])


async def round_trip_ms(url: str, spoken: list[Utterance]) -> float:
    """Median time from a chunk that holds one utterance to its text."""
    times_ms = []
    async with c.connect(url, mode="chunk", user_id="bench") as session:
        events = session.events()
        for utterance in spoken:
            began_s = time.perf_counter()
            await session.send(utterance.pcm)
            while not isinstance(await anext(events), c.Segment):
                pass
            times_ms.append((time.perf_counter() - began_s) * 1000)
        await session.finish()
    return statistics.median(times_ms)


async def session_kb(url: str, gateway: psutil.Process) -> float:
    """Memory that one started session without audio adds to the gateway."""
    async with contextlib.AsyncExitStack() as sessions:

        async def open_some(count: int) -> float:
            for _ in range(count):
                await sessions.enter_async_context(c.connect(url, user_id="bench"))
            return float(gateway.memory_full_info().uss) / 1000

        # The first sessions warm up allocators.
        before_kb = await open_some(IDLE_SESSIONS // 3)
        return (await open_some(IDLE_SESSIONS) - before_kb) / IDLE_SESSIONS


def measure() -> list[Figure]:
    spoken = utterances(ROUND_TRIPS)
    bare_ms = bare_call_ms(spoken)
    with supervised_stack(SETTINGS) as stack:
        whole_ms = asyncio.run(round_trip_ms(stack.url(), spoken))
        (gateway,) = stack.living("gateway")
        idle_kb = asyncio.run(session_kb(stack.url(), gateway))
    return [
        Figure(
            what=f"a chunk of {UTTERANCE_S} s to its text, added to the model's time (p50)",
            value=whole_ms - bare_ms,
            unit="ms",
            reference=f"the bare model call: {bare_ms:.1f} ms; in all {whole_ms:.1f} ms",
            at_most=PROMISED_ADDED_MS,
        ),
        Figure(
            what=f"memory of a gateway for an idle session (of {IDLE_SESSIONS})",
            value=idle_kb,
            unit="kB",
            reference="unique set size before and after",
            at_most=PROMISED_SESSION_KB,
        ),
    ]
