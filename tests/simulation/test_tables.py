"""The tables in memory behave as PostgreSQL: the same random batches give the same rows in both."""

from __future__ import annotations

import random
from typing import Any

import psycopg

from persistence.batch_buffer import Entry
from persistence.migrate import migrate
from persistence.reads import SessionReader
from persistence.store import write
from tests.persistence import sent
from tests.simulation.tables import Tables
from wire.messages import Failure
from wire.records import DEFAULT_TENANT, SessionStatus

HISTORIES = 60
STATUSES: tuple[SessionStatus, ...] = ("completed", "failed", "abandoned", "interrupted")


def random_entry(rng: random.Random, session_id: str) -> Entry:
    generation = rng.choice((0, 0, 1, 2))
    what = rng.random()
    if what < 0.45:
        seq = rng.randrange(3)
        failure = Failure(code="chunk_failed", message="?") if rng.random() < 0.1 else None
        segment = sent.segment(seq, f"text-{rng.random()}", failure)
        if rng.random() < 0.5:
            return sent.entry(segment, session_id, seq, generation=generation, kind="result")
        return sent.entry(segment, session_id, seq, generation=generation)
    if what < 0.6:
        # As in reality, records of one key are equal.
        seq = rng.randrange(9)
        voice = bytes([generation, seq, 0, 0])
        labels = [(generation + seq + index) % 4 for index in range(1 + seq % 3)]
        body = sent.labels(seq % 2, *labels, centroids=(voice,) if seq % 4 else ())
        return sent.entry(body, session_id, seq, generation=generation)
    if what < 0.7:
        started = sent.started(
            started_at_ms=sent.NOON_MS + rng.randrange(3),
            resume_token_hash=rng.choice(("hash", "hash", "other")),
        )
        return sent.entry(started, session_id, generation=generation)
    if what < 0.85:
        finished = sent.finished(
            status=rng.choice(STATUSES),
            text=f"all-{rng.random()}",
            segment_count=rng.randrange(4),
            completed_at_ms=sent.NOON_MS + rng.randrange(3),
            started=sent.started() if rng.random() < 0.5 else None,
        )
        return sent.entry(finished, session_id, generation=generation)
    if what < 0.99:
        resumed = sent.resumed(f"gateway-{rng.randrange(3)}", rng.choice(("hash", "other")))
        return sent.entry(resumed, session_id, generation=max(1, generation))
    return sent.entry(sent.deleted(), session_id)


def shown(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields that must agree: without clock times, and only the status of a deleted session."""
    if state is None:
        return None
    names = (
        "status",
        "started",
        "generation",
        "gateway_id",
        "resume_token_hash",
        "text",
        "duration_ms",
        "chunk_count",
        "has_all_segments",
        "segments",
        "speakers",
        "centroids",
    )
    return {name: state[name] for name in names if state["status"] != "deleted" or name == "status"}


async def test_the_same_batches_give_the_same_rows(database: str) -> None:
    rng = random.Random(4)
    tables = Tables()
    reader = SessionReader(database)
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        await reader.open()
        try:
            for number in range(HISTORIES):
                session_id = f"s{number}"
                for _ in range(rng.randrange(2, 9)):
                    batch = [random_entry(rng, session_id) for _ in range(rng.randrange(1, 5))]
                    assert tables.write(batch, 0.0) == write(connection, batch)
                    real = shown(await reader.resume_state(session_id, DEFAULT_TENANT))
                    assert shown(tables.resume_state(session_id)) == real, batch
        finally:
            await reader.close()
