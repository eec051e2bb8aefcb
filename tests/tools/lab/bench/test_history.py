"""The stored sessions, and what is asked about them."""

from __future__ import annotations

import random

import psycopg
import pytest

from persistence.history import HistoryQuery
from persistence.reads import SessionReader
from tools.lab.bench import history
from wire.records import DEFAULT_TENANT


async def test_sessions_are_stored_as_persistence_does_and_found(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SESSIONS", 40)
    monkeypatch.setattr(history, "WORDS", 50)
    chance = random.Random(1)
    vocabulary = history.Vocabulary(chance)
    history.fill(database, vocabulary, chance)
    reader = SessionReader(database)
    await reader.open()
    try:
        for words in (vocabulary.english[0], vocabulary.chinese[0]):
            page = await reader.history(HistoryQuery(tenant=DEFAULT_TENANT, words=words))
            assert 1 <= page.total < 40
        queries = [history.page_query(chance) for _ in range(50)]
        assert any(query.cursor is None for query in queries)
        assert any(query.user_id is not None for query in queries)
        spent_ms = await history.milliseconds(reader, lambda: queries.pop(), 50)
        assert len(spent_ms) == 50 and min(spent_ms) > 0
    finally:
        await reader.close()
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM asr_sessions WHERE terms IS NULL").fetchone()
    assert row == (0,)
    assert history.scan_ms(database, vocabulary) > 0
