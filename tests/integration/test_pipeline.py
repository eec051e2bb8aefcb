"""Speech in, words out, through every real process: gateway, broker, workers, persistence."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from asr_client import Event, FinalResult, PartialResult, Segment, Session
from gateway.session.transcript import join_texts
from tests.integration.admitted import open_session
from tests.integration.speech import PARTIALS_TRIES, Shape, Spoken, chunks_of, spoken
from tools.lab.harness.stack import Stack, wait_until

SESSIONS = 40
CHUNK_MS = (20, 60, 200, 1000, 5000)
FORMATS = [
    ("wav", 8_000, 1),
    ("wav", 16_000, 2),
    ("wav", 44_100, 2),
    ("webm", 48_000, 1),
    ("flac", 16_000, 1),
    ("mp3", 44_100, 1),
    ("ogg", 48_000, 1),
]


async def _transcribe(
    stack: Stack, chunks: list[bytes], *, binary: bool, pace_s: float = 0.0
) -> tuple[str, FinalResult, list[Event]]:
    """A whole session: its id, its final result and every event before that."""
    async with open_session(stack.url(), binary=binary) as session:
        sending = asyncio.create_task(_send(session, chunks, pace_s))
        events = [event async for event in session.events()]
        await sending
    final = events[-1]
    assert isinstance(final, FinalResult)
    return session.session_id, final, events


async def _send(session: Session, chunks: list[bytes], pace_s: float) -> None:
    for chunk in chunks:
        await session.send(chunk)
        if pace_s:
            await asyncio.sleep(pace_s)
    await session.finish()


def _variants(shape: Shape) -> list[tuple[str, int, int, int]]:
    """Container, rate, channels and chunk length of each of the sessions."""
    if shape == "raw":
        return [("", 16_000, 1, ms) for ms in CHUNK_MS]
    variants = [(*f, ms) for f, ms in itertools.product(FORMATS, CHUNK_MS)]
    if shape == "files":
        # A file of one packet is the least that an encoder of packets makes.
        variants = [v for v in variants if v[3] >= 200 or v[0] in ("wav", "flac")]
    return variants


def _stored(stack: Stack, session_id: str) -> tuple[dict[str, object], list[dict[str, object]]]:
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        session = connection.execute(
            "SELECT * FROM asr_sessions WHERE id = %s", [session_id]
        ).fetchone()
        segments = connection.execute(
            "SELECT * FROM asr_segments WHERE session_id = %s ORDER BY segment_index",
            [session_id],
        ).fetchall()
    assert session is not None
    return session, segments


def _assert_kept_everywhere(stack: Stack, session_id: str, final: FinalResult) -> None:
    assert final.stored
    session, segments = _stored(stack, session_id)
    assert session["text"] == final.text
    assert session["status"] == "completed"
    assert join_texts(str(row["text"]) for row in segments) == final.text
    assert [row["segment_index"] for row in segments] == list(range(len(segments)))
    answer = stack.get(f"/api/v1/session/{session_id}?include=chunks")
    assert answer.status == 200
    assert answer.body["text"] == final.text
    assert answer.body["chunk_count"] == final.chunk_count == len(answer.body["chunks"])
    assert join_texts(s["text"] for s in answer.body["segments"]) == final.text


@pytest.mark.parametrize("shape", ["raw", "sliced", "files"])
async def test_forty_sessions_at_once_each_get_their_own_words(stack: Stack, shape: Shape) -> None:
    variants = _variants(shape)
    said: list[Spoken] = []
    jobs = []
    for number in range(SESSIONS):
        audio = spoken(1_000 + number)
        container, rate_hz, channels, chunk_ms = variants[number % len(variants)]
        chunks = chunks_of(audio, shape, container, rate_hz, channels, chunk_ms)
        said.append(audio)
        jobs.append(_transcribe(stack, chunks, binary=number % 2 == 0))
    results = await asyncio.gather(*jobs)
    reported = [final.text for _, final, _ in results]
    assert reported == [audio.text for audio in said]
    for session_id, final, _ in results:
        await asyncio.to_thread(_assert_kept_everywhere, stack, session_id, final)


async def test_chunking_changes_neither_texts_nor_segments(stack: Stack) -> None:
    audio = spoken(7, digits=(14, 14))
    rng = random.Random(7)
    raw = audio.pcm.tobytes()
    uneven = [raw[a:b] for a, b in itertools.pairwise(_random_cuts(rng, len(raw)))]
    ways = [chunks_of(audio, "raw", "", 16_000, 1, ms) for ms in CHUNK_MS] + [uneven]
    results = await asyncio.gather(*(_transcribe(stack, way, binary=True) for way in ways))
    segments = [
        [(e.segment_index, e.start_ms, e.end_ms, e.text) for e in events if type(e) is Segment]
        for _, _, events in results
    ]
    assert len(segments[0]) >= 2
    assert all(other == segments[0] for other in segments)
    assert {final.text for _, final, _ in results} == {audio.text}


def _random_cuts(rng: random.Random, length: int) -> list[int]:
    """Cut places of every size, odd ones too."""
    cuts = [0]
    while cuts[-1] < length:
        cuts.append(
            min(length, cuts[-1] + rng.choice([1, 333, 1920, 6400, rng.randrange(1, 40_000)]))
        )
    return cuts


async def test_chunk_index_is_that_of_the_chunk_in_which_the_segment_ends(stack: Stack) -> None:
    audio = spoken(11, digits=(12, 12))
    chunks = chunks_of(audio, "raw", "", 16_000, 1, 200)
    _, _, events = await _transcribe(stack, chunks, binary=False)
    texts = [event for event in events if isinstance(event, Segment)]
    assert texts
    for event in texts:
        assert event.chunk_index * 200 < event.end_ms <= (event.chunk_index + 1) * 200


async def test_partials_grow_into_the_text(stack: Stack) -> None:
    audio = spoken(12, digits=(10, 10))
    for _ in range(PARTIALS_TRIES):
        async with open_session(stack.url(), partials=True) as session:
            sending = asyncio.create_task(
                _send(session, chunks_of(audio, "raw", "", 16_000, 1, 100), 0.05)
            )
            events = [event async for event in session.events()]
            await sending
        final = events[-1]
        assert isinstance(final, FinalResult) and final.text == audio.text
        count = sum(isinstance(event, PartialResult) for event in events)
        if count >= 2:
            break
    assert count >= 2


# ------------------------------------------------------------------------------- a worker is killed


def _children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It ended meanwhile.
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


async def test_killing_a_worker_child_loses_nothing(stack: Stack) -> None:
    audios = [spoken(2_000 + number, digits=(10, 14)) for number in range(20)]
    sessions = [
        asyncio.create_task(
            _transcribe(
                stack, chunks_of(audio, "raw", "", 16_000, 1, 100), binary=True, pace_s=0.05
            )
        )
        for audio in audios
    ]
    await asyncio.sleep(2.0)
    victims = _children(stack.processes["asr_worker"].pid)
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    results = await asyncio.gather(*sessions)
    assert [final.text for _, final, _ in results] == [audio.text for audio in audios]
    for session_id, final, _ in results:
        _, segments = _stored(stack, session_id)
        assert join_texts(str(row["text"]) for row in segments) == final.text
    await asyncio.to_thread(
        wait_until,
        lambda: stack.get("/api/v1/health").body["workers_ready"] == 2,
        "the killed child is replaced",
    )
