"""Databases for tests, and the rows of sessions."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg
import pytest

from tests.conftest import EmbeddedServices
from tools.lab.harness import database as databases
from tools.lab.harness.database import StoredSegment

TABLES = """
CREATE TABLE asr_sessions (id text, status text, text text);
CREATE TABLE asr_segments (session_id text, segment_index int, text text, provisional bool);
CREATE TABLE asr_chunks (session_id text);
INSERT INTO asr_sessions VALUES ('s', 'completed', 'one'), ('t', 'active', NULL);
INSERT INTO asr_segments VALUES ('s', 0, 'one', false), ('s', 1, 'two', true),
    ('t', 0, NULL, false);
INSERT INTO asr_chunks VALUES ('s'), ('s');
"""


def test_the_rows_of_sessions(database: str) -> None:
    with databases.connect(database) as connection:
        connection.execute(TABLES)
    stored = databases.stored_sessions(database, ["s", "t", "unknown"])
    assert stored.keys() == {"s", "t"}
    assert stored["s"].segments == (StoredSegment(0, "one"),)
    assert (stored["s"].status, stored["s"].text, stored["s"].chunks) == ("completed", "one", 2)
    assert stored["t"].text is None and stored["t"].segments == (StoredSegment(0, None),)
    assert databases.is_completed(database, "s") is True
    assert databases.is_completed(database, "t") is False
    assert databases.is_completed(database, "unknown") is False


def test_a_database_that_does_not_answer_completes_nothing() -> None:
    assert databases.is_completed("postgresql://x@127.0.0.1:1/x", "s") is None


def test_a_temporary_database_is_dropped(embedded_services: EmbeddedServices) -> None:
    with databases.temporary(embedded_services.database_url) as url:
        assert urlsplit(url).path.startswith("/test_")
        databases.connect(url).close()
    with pytest.raises(psycopg.OperationalError):
        databases.connect(url)
