"""A stored session, read and rebuilt, has all its results."""

from __future__ import annotations

import psycopg
import pytest

from persistence.migrate import migrate
from persistence.reads import SessionReader
from tools.lab.bench import takeover
from wire.records import DEFAULT_TENANT


@pytest.mark.parametrize("segments", [3, 400])
async def test_a_session_is_rebuilt_with_all_its_results(database: str, segments: int) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
    takeover.store(database, "s", segments)
    reader = SessionReader(database)
    await reader.open()
    try:
        stored = await reader.resume_state("s", DEFAULT_TENANT)
        cost = await takeover.cost(reader, ["s", "s"])
    finally:
        await reader.close()
    assert stored is not None
    session = takeover.rebuilt("s", stored)
    assert session.segment_count == segments
    assert session.text == " ".join(result.text for result in stored["segments"])
    assert cost.processor_ms > 0
