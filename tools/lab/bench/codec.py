"""The bus's encoding, beside bare msgpack of the same header."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgpack

from tools.lab.bench.figures import Figure
from wire import codec
from wire import messages as m

MEASURE_S = 0.5
JOB = m.Job(
    session_id="6f1c0c1e-5a5e-4a8e-9a53-0d6a0f6f9f11",
    seq=7,
    partial=False,
    lane="live",
    start_ms=12_000,
    end_ms=14_000,
    last_chunk_index=139,
    language="zh",
    hotwords=(),
    deadline_ms=60_000,
    pcm=bytes(2_048),
)


def microseconds(work: Callable[[], object]) -> float:
    """Of one call, the least of five series."""
    work()
    calls, best_s = 0, float("inf")
    for _ in range(5):
        began_s = time.perf_counter()
        calls = 0
        while time.perf_counter() - began_s < MEASURE_S / 5:
            for _ in range(100):
                work()
            calls += 100
        best_s = min(best_s, (time.perf_counter() - began_s) / calls)
    return best_s * 1e6


def measure() -> list[Figure]:
    frames = codec.encode(JOB)
    header = msgpack.unpackb(frames[1])
    encode_us = microseconds(lambda: codec.encode(JOB))
    decode_us = microseconds(lambda: codec.decode(frames))
    pack_us = microseconds(lambda: msgpack.packb(header))
    unpack_us = microseconds(lambda: msgpack.unpackb(frames[1]))
    return [
        Figure(
            what="encoding a Job of 2 KiB",
            value=encode_us,
            unit="µs",
            reference=f"msgpack of its header alone: {pack_us:.1f} µs",
        ),
        Figure(
            what="decoding it, every field checked",
            value=decode_us,
            unit="µs",
            reference=f"msgpack of its header alone: {unpack_us:.1f} µs",
        ),
    ]
