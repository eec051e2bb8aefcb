"""Audit lines around the whole application: who did what, and who was refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
import structlog
from fastapi import FastAPI

from gateway.server import Server
from gateway.telemetry.metrics import AUDIT_OMITTED
from gateway.web import audit
from gateway.web.app import create_app
from persistence.history import HistoryPage
from tests.gateway.web.test_auth import TOKEN, allowing, holding

SECOND_S = 1_000.0


class Reader:
    async def session(self, _session_id: str, _tenant: str, **_asked: object) -> None:
        return None

    status = session

    async def history(self, _query: object) -> HistoryPage:
        return HistoryPage(records=(), total=0, next_cursor=None)


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.audit.time.monotonic", lambda: SECOND_S)


def app_of(folder: Path, **limits: Any) -> FastAPI:
    server = SimpleNamespace(
        quotas=SimpleNamespace(refuse_request=allowing),
        reader=Reader(),
        sessions={},
        models=SimpleNamespace(get=lambda _name: None),
        is_here=lambda _session_id, _tenant: False,
    )
    return create_app(cast(Server, server), {}, holding(folder, **limits))


async def logged(app: FastAPI, *requests: tuple[str, str], token: str = TOKEN) -> list[Any]:
    transport = httpx2.ASGITransport(app, client=("192.0.2.7", 1))
    headers = {"Authorization": f"Bearer {token}"}
    with structlog.testing.capture_logs() as logs:
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://gateway", headers=headers
        ) as client:
            for method, path in requests:
                await client.request(method, path)
    lines = [log for log in logs if log["event"] == "audit"]
    for line in lines:
        assert line.pop("event") == "audit" and line.pop("log_level") == "info"
    return lines


async def test_reads_and_deletions_are_logged_with_token_and_session(tmp_path: Path) -> None:
    who = {"token_name": "anna", "tenant": "acme", "client": "192.0.2.7"}
    path = "/api/v1/session/{session_id}"
    lines = await logged(
        app_of(tmp_path, tenant="acme"),
        ("GET", "/api/v1/session/one"),
        ("DELETE", "/api/v1/session/one"),
        ("GET", "/api/v1/history?q=secret+words"),
        ("GET", "/v1/models/x"),
    )
    assert lines == [
        {**who, "action": "read", "request": f"GET {path}", "session_id": "one", "status": 404},
        {
            **who,
            "action": "delete",
            "request": f"DELETE {path}",
            "session_id": "one",
            "status": 404,
        },
        {
            **who,
            "action": "read",
            "request": "GET /api/v1/history",
            "session_id": None,
            "status": 200,
        },
    ]


async def test_refusals_are_noted_with_their_code(tmp_path: Path, second: None) -> None:
    app = app_of(tmp_path, scopes=frozenset({"read"}))
    (line,) = await logged(app, ("DELETE", "/api/v1/session/one"))
    assert (line["action"], line["session_id"], line["token_name"]) == ("refuse", "one", "anna")
    assert (line["status"], line["code"]) == (403, "insufficient_scope")
    (line,) = await logged(app, ("GET", "/api/v1/session/one"), token="wrong")
    assert (line["action"], line["token_name"], line["tenant"]) == ("refuse", None, None)
    assert (line["status"], line["code"], line["client"]) == (401, "unauthorized", "192.0.2.7")


async def test_a_flood_of_refusals_is_counted(tmp_path: Path, second: None) -> None:
    before = AUDIT_OMITTED._value.get()
    requests = [("GET", "/api/v1/history")] * (audit.REFUSED_PER_S_MAX + 3)
    lines = await logged(app_of(tmp_path), *requests, token="wrong")
    assert len(lines) == audit.REFUSED_PER_S_MAX
    assert AUDIT_OMITTED._value.get() == before + 3
