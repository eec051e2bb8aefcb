"""The application: its lifespan."""

from __future__ import annotations

from typing import cast

import pytest
from starlette.testclient import TestClient

from gateway.server import Server
from gateway.web.app import create_app
from runtime import memory


class Stub:
    """A server that notes when it is opened and closed."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def open(self) -> None:
        self.events.append("open")

    async def close(self) -> None:
        self.events.append("close")


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
