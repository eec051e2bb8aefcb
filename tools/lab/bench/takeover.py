"""Sessions that move to another gateway: the time to read and rebuild one, and its memory.

After a gateway ends, all of its sessions are taken over at once, and the texts of each wait for the
takeovers before it.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg

from gateway.session import events as e
from gateway.session.core import Session
from gateway.session.endpointer import EndpointerConfig
from gateway.session.limits import SessionLimits
from gateway.session.resume import resume_point_of
from persistence.batch_buffer import Entry
from persistence.migrate import migrate
from persistence.reads import SessionReader
from persistence.store import write
from tools.lab.bench.figures import Figure
from tools.lab.bench.history import database
from wire.messages import StoredKey, Token
from wire.records import DEFAULT_TENANT, RecordBody, SegmentCopy, SessionStarted

SESSIONS = 50
SEGMENTS = 650
"""About 40 minutes of speech."""
SHORT = 10
SEGMENT_MS = 4_000
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one session, on average."""

    processor_ms: float
    wall_ms: float
    memory_kb: float


def segment(seq: int, chance: random.Random) -> SegmentCopy:
    words = chance.choices(WORDS, k=chance.randint(1, 6))
    start_ms = seq * SEGMENT_MS
    return SegmentCopy(
        seq=seq,
        start_ms=start_ms,
        end_ms=start_ms + len(words) * 500,
        last_chunk_index=seq * 20,
        resume_chunk_index=seq * 20,
        tokens=tuple(
            Token(text=word, start_ms=start_ms + n * 500, end_ms=start_ms + n * 500 + 400)
            for n, word in enumerate(words)
        ),
        worker_id="worker-1",
        attempt=1,
        queue_ms=5,
        infer_ms=20,
        segment_text=" ".join(words),
        failure=None,
    )


def store(url: str, session_id: str, segments: int) -> None:
    """Store a session that has not ended."""
    start = SessionStarted(
        user_id="", client="", mode="auto", language="en", started_at_ms=0, resume_token_hash=""
    )
    chance = random.Random(session_id)
    bodies: list[RecordBody] = [start, *(segment(seq, chance) for seq in range(segments))]
    entries = [
        Entry(
            gateway_id="gateway-1",
            key=StoredKey(session_id=session_id, kind="record", seq=seq, generation=0),
            body=body,
            byte_count=0,
            received_s=0.0,
        )
        for seq, body in enumerate(bodies)
    ]
    with psycopg.connect(url, autocommit=True) as connection:
        write(connection, entries)


def rebuilt(session_id: str, stored: dict[str, Any]) -> Session:
    session = Session(
        SessionLimits(segment_deadline_ms=60_000, speaker_similarity_min=0.4, resume_wait_s=60.0),
        EndpointerConfig(endpoint_silence_ms=600),
        resume_token="",
        client="",
        wall_offset_ms=0,
        resume_point=resume_point_of(stored, generation=1),
    )
    start = e.Start(
        session_id=session_id,
        user_id="",
        mode="auto",
        sample_rate_hz=16_000,
        language="en",
        hotwords=(),
        partials=False,
        encoded=False,
        next_segment_index=len(stored["segments"]),
    )
    session.handle(start, 0.0)
    return session


async def cost(reader: SessionReader, session_ids: list[str]) -> Cost:
    """Take the sessions over, one after the other."""
    process = psutil.Process()
    sessions = []
    gc.collect()
    memory = process.memory_info().rss
    processor_s, wall_s = time.process_time(), time.perf_counter()
    for session_id in session_ids:
        stored = await reader.resume_state(session_id, DEFAULT_TENANT)
        assert stored is not None
        sessions.append(rebuilt(session_id, stored))
    processor_s, wall_s = time.process_time() - processor_s, time.perf_counter() - wall_s
    gc.collect()
    count = len(sessions)
    kept = process.memory_info().rss - memory
    return Cost(processor_s * 1_000 / count, wall_s * 1_000 / count, kept / count / 1_000)


async def _measured(url: str) -> tuple[Cost, Cost]:
    sizes = {
        f"s{segments}-{n}": segments for segments in (SHORT, SEGMENTS) for n in range(SESSIONS)
    }
    for session_id, segments in sizes.items():
        store(url, session_id, segments)
    reader = SessionReader(url)
    await reader.open()
    try:
        await reader.ping()
        short, long = [
            await cost(reader, [each for each in sizes if sizes[each] == segments])
            for segments in (SHORT, SEGMENTS)
        ]
    finally:
        await reader.close()
    return short, long


def measure() -> list[Figure]:
    with database() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            migrate(connection)
        short, long = asyncio.run(_measured(url))
    return [
        Figure(
            what=f"processor time of the gateway for a session with {SEGMENTS} results",
            value=long.processor_ms,
            unit="ms",
            reference=f"with {SHORT} results {short.processor_ms:.1f} ms; "
            f"with PostgreSQL's time {long.wall_ms:.1f} and {short.wall_ms:.1f} ms",
        ),
        Figure(
            what=f"memory of a session with {SEGMENTS} results",
            value=long.memory_kb,
            unit="kB",
            reference=f"with {SHORT} results {short.memory_kb:.0f} kB",
        ),
    ]
