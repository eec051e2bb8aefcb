"""The checks before a WebSocket is accepted. Refusals under load: tests/integration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from fastapi import WebSocket
from starlette.routing import WebSocketRoute

from gateway.admission.policy import Refusal
from gateway.dialects.registry import DIALECTS
from gateway.server import Server
from gateway.web.app import create_app
from gateway.web.upgrade import origin_allowed, refused
from tests.gateway.web.endpoints import endpoint

REFUSAL = Refusal(code="overloaded", message="no", retry_after_s=7)


def opened_from(origin: str | None) -> WebSocket:
    headers = {"host": "here"} | ({"origin": origin} if origin is not None else {})
    return cast(WebSocket, SimpleNamespace(headers=headers))


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "http://", "\u00ff"])
def test_a_malformed_origin_is_not_allowed(origin: str) -> None:
    assert not origin_allowed(opened_from(origin), "http://there")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [(None, ""), ("http://here", ""), ("http://there", "http://other, http://there"), ("x", "*")],
)
def test_these_origins_are_allowed(origin: str | None, allowed: str) -> None:
    assert origin_allowed(opened_from(origin), allowed)


def test_another_origin_is_not_allowed() -> None:
    assert not origin_allowed(opened_from("http://there"), "http://other")


def test_every_dialect_is_mounted_at_its_path() -> None:
    app = create_app(cast(Server, SimpleNamespace()), {})
    mounted = {route.path for route in app.routes if isinstance(route, WebSocketRoute)}
    assert mounted == set(DIALECTS)


def test_a_refusal_has_retry_after() -> None:
    response = refused(REFUSAL)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
    assert bytes(response.body) == b'{"code":"overloaded","message":"no","retry_after_s":7}'


async def test_admission_answers_as_the_upgrade_would() -> None:
    asked: list[tuple[str | None, str | None]] = []

    async def would_refuse(resume: str | None, model: str | None) -> Refusal | None:
        asked.append((resume, model))
        return REFUSAL if resume is None else None

    gate = SimpleNamespace(would_refuse=would_refuse, model_of=lambda asked: asked or None)
    ask = endpoint(SimpleNamespace(gate=gate), "/api/v1/admission")
    assert (await ask(resume="", model="zh")).status_code == 503
    assert await ask(resume="s", model="") == {"admitted": True}
    assert asked == [(None, "zh"), ("s", None)]
