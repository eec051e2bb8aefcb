from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import cast

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from msgspec import to_builtins
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from gateway.dialects.fields import NAME_CHARS_SHOWN_MAX, NAMES_SHOWN_MAX
from gateway.server import Server
from gateway.web.app import create_app
from gateway.web.parameters import WARNS_OF_UNKNOWN, Time, Warnings

CHINA = timezone(timedelta(hours=8))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-01T12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T12:00:00 08:00", datetime(2026, 1, 1, 12, tzinfo=CHINA)),
        ("2026-01-01 12:00:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
    ],
)
def test_times(text: str, time: datetime) -> None:
    assert TypeAdapter(Time).validate_python(text) == time


def test_warnings_about_unknown_parameters_are_limited() -> None:
    app = FastAPI()

    @app.get("/")
    async def show(warnings: Warnings, known: int = 0) -> object:
        return to_builtins(warnings)

    client = TestClient(app)
    assert client.get("/?known=1").json() == []
    query = "&".join(f"{number:0100}=1" for number in range(NAMES_SHOWN_MAX + 1))
    reported = client.get(f"/?{query}").json()
    assert len(reported) == NAMES_SHOWN_MAX
    assert len(reported[0]["message"]) < NAME_CHARS_SHOWN_MAX + 40


def test_every_route_of_the_api_reports_unknown_parameters() -> None:
    app = create_app(cast(Server, SimpleNamespace()), {})
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    silent = [
        route.path
        for route in routes
        if route.path.startswith("/api/v1/")
        and WARNS_OF_UNKNOWN.dependency not in [each.call for each in route.dependant.dependencies]
    ]
    assert silent == []
