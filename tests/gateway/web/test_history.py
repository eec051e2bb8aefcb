"""The history over REST, with a database. What a page holds is tested in tests/persistence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import psycopg
import pytest
from starlette.testclient import TestClient

from gateway.server import Server
from gateway.web.app import create_app
from persistence.migrate import migrate
from persistence.reads import SessionReader
from persistence.store import write
from tests.persistence import sent


class Reading:
    """A server that reads from the database, and nothing else."""

    def __init__(self, reader: SessionReader) -> None:
        self.reader = reader
        self.open, self.close = reader.open, reader.close


@pytest.fixture
def client(database: str) -> Iterator[TestClient]:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        for number, text in enumerate(("nine two", "今天天气很好", "nine three")):
            at_ms = sent.NOON_MS + 1_000 * number
            started = sent.started(started_at_ms=at_ms, user_id=f"user {number}")
            bodies = (started, sent.finished(text=text))
            write(connection, [sent.entry(body, f"s{number}") for body in bodies])
    app = create_app(cast(Server, Reading(SessionReader(database))), {})
    with TestClient(app) as opened:
        yield opened


def ids(client: TestClient, **asked: Any) -> list[str]:
    response = client.get("/api/v1/history", params=asked)
    assert response.status_code == 200, response.text
    return [record["session_id"] for record in response.json()["records"]]


def test_pages_follow_by_their_cursor(client: TestClient) -> None:
    first = client.get("/api/v1/history", params={"limit": 2}).json()
    assert (first["total"], first["total_max"], first["warnings"]) == (3, 5_000, [])
    assert [record["session_id"] for record in first["records"]] == ["s2", "s1"]
    assert ids(client, limit=2, cursor=first["next_cursor"]) == ["s0"]
    assert ids(client, offset=1) == ["s1", "s0"]


def test_sessions_are_found_by_text_time_user_and_status(client: TestClient) -> None:
    assert ids(client, q="NINE") == ["s2", "s0"]
    assert ids(client, q="天气") == ids(client, q="天") == ["s1"]
    assert ids(client, q=" ") == ["s2", "s1", "s0"]
    assert ids(client, user_id="user 1") == ["s1"]
    assert ids(client, status=["failed", "completed"], limit=1) == ["s2"]
    assert ids(client, status="failed") == []
    assert ids(client, since="2026-01-01T12:00:01", until="2026-01-01T20:00:02+08:00") == ["s1"]


def test_an_unescaped_plus_in_a_time_is_understood(client: TestClient) -> None:
    answer = client.get("/api/v1/history?since=2026-01-01T20:00:02+08:00").json()
    assert [record["session_id"] for record in answer["records"]] == ["s2"]


def test_whole_texts_only_if_asked_for(client: TestClient) -> None:
    (record,) = client.get("/api/v1/history?limit=1").json()["records"]
    assert (record["preview"], record["text"]) == ("nine three", "nine three")
    (record,) = client.get("/api/v1/history?limit=1&texts=true").json()["records"]
    assert record["text"] == "nine three"


def test_unknown_parameters_are_reported(client: TestClient) -> None:
    (warning,) = client.get("/api/v1/history?limit=1&limt=2&limt=3").json()["warnings"]
    assert warning["code"] == "unknown_parameter"
    assert warning["message"].startswith("'limt' has no effect; known: limit, cursor")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=1001",
        "offset=-1",
        "cursor=nonsense",
        "cursor=MTIz",
        "since=yesterday",
        "until=2026-13-01",
        "status=deleted",
        "q=!?",
        "q=" + "a" * 201,
        "user_id=%00",
        "model=%00",
    ],
)
def test_what_is_malformed_is_422_and_names_the_parameter(client: TestClient, query: str) -> None:
    response = client.get(f"/api/v1/history?{query}")
    assert response.status_code == 422
    assert query.partition("=")[0] in response.text
