"""The application: its lifespan, and errors that any route may raise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from gateway.server import Server
from gateway.web.app import create_app
from persistence.reads import StoreUnavailable
from runtime import memory


class Stub:
    """A server whose database is away."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.reader = self

    async def open(self) -> None:
        self.events.append("open")

    async def close(self) -> None:
        self.events.append("close")

    async def history(self, limit: int) -> Any:
        raise StoreUnavailable("the database does not answer")


def test_the_lifespan_opens_and_closes_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[int] = []
    monkeypatch.setattr(memory, "settle", lambda: None)
    monkeypatch.setattr(memory, "sweep", lambda: swept.append(1))
    monkeypatch.setattr(memory, "SWEEP_EVERY_S", 0.0)
    stub = Stub()
    with TestClient(create_app(cast(Server, stub), {})) as client:
        assert client.get("/livez").status_code == 200
        assert stub.events == ["open"]
    assert stub.events == ["open", "close"]
    assert swept


def test_without_the_database_503_has_retry_after() -> None:
    client = TestClient(create_app(cast(Server, Stub()), {}))
    response = client.get("/api/v1/history")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert response.json()["code"] == "store_unavailable"


def test_an_invalid_parameter_is_422() -> None:
    client = TestClient(create_app(cast(Server, SimpleNamespace()), {}))
    assert client.get("/api/v1/history?limit=0").status_code == 422
