"""The sessions that are taken over are those that were stored."""

from __future__ import annotations

import psycopg

from persistence.migrate import migrate
from persistence.reads import SessionReader
from tools.lab.bench import takeover
from wire.records import DEFAULT_TENANT


async def test_a_session_is_rebuilt_with_all_its_results(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
    takeover.store(database, "short", 3)
    takeover.store(database, "long", 400)
    reader = SessionReader(database)
    await reader.open()
    try:
        stored = await reader.resume_state("short", DEFAULT_TENANT)
        assert stored is not None
        session = takeover.rebuilt("short", stored)
        assert session.segment_count == 3 and session.text != ""
        short, long = [await takeover.cost(reader, [each] * 5) for each in ("short", "long")]
    finally:
        await reader.close()
    assert short.processor_ms > 0 and long.wall_ms > 0
