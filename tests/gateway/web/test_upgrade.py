"""The checks before a WebSocket is accepted. Refusals under load: tests/integration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from gateway.admission.policy import Refusal
from gateway.dialects.dialect import Handshake, MessageError
from gateway.dialects.native import Native
from gateway.dialects.registry import DIALECTS
from gateway.server import Server
from gateway.storage.callers import Caller
from gateway.web.app import create_app
from gateway.web.schemas import problem
from gateway.web.upgrade import add_dialects
from tests.gateway.web.endpoints import endpoint

REFUSAL = Refusal(code="overloaded", message="no", retry_after_s=7)


def test_every_dialect_is_mounted_at_its_path() -> None:
    app = create_app(cast(Server, SimpleNamespace()), {})
    mounted = {route.path for route in app.routes if isinstance(route, WebSocketRoute)}
    assert mounted == set(DIALECTS)


def test_a_query_that_the_dialect_refuses_is_400_before_the_upgrade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handshakes: list[Handshake] = []

    def new_dialect(handshake: Handshake) -> Native:
        handshakes.append(handshake)
        raise MessageError("no")

    monkeypatch.setitem(DIALECTS, "/vosk", new_dialect)
    app = FastAPI()
    add_dialects(app, cast(Server, SimpleNamespace()))
    address = "/vosk?a=1&a=%E4%BA%8C&b="
    with pytest.raises(WebSocketDenialResponse) as refusal:  # noqa: SIM117
        with TestClient(app).websocket_connect(address):
            pass
    assert (refusal.value.status_code, refusal.value.json()) == (
        400,
        problem("invalid_query_parameter", "no"),
    )
    (handshake,) = handshakes
    assert handshake.query == {"a": ["1", "二"], "b": [""]}
    assert handshake.headers["user-agent"] == "testclient"


async def test_admission_answers_as_the_upgrade_would() -> None:
    asked: list[tuple[str | None, str | None, Caller]] = []

    async def would_refuse(resume: str | None, model: str | None, caller: Caller) -> Refusal | None:
        asked.append((resume, model, caller))
        return REFUSAL if resume is None else None

    gate = SimpleNamespace(would_refuse=would_refuse, model_of=lambda asked: asked or None)
    ask = endpoint(SimpleNamespace(gate=gate), "/api/v1/admission")
    client = SimpleNamespace(client=SimpleNamespace(host="::1"), scope={})
    caller = Caller(tenant="acme", token_name="anna")
    unknown = SimpleNamespace(client=None, scope={"state": {"caller": caller}})
    assert (await ask(client, resume="", model="zh")).status_code == 503
    assert await ask(unknown, resume="s", model="") == {"admitted": True}
    assert asked == [
        (None, "zh", Caller(address="::1")),
        ("s", None, caller),
    ]


def test_an_unknown_path_is_404() -> None:
    client = TestClient(create_app(cast(Server, SimpleNamespace()), {}))
    for path in ("/ws", "/ws/asr/more", "/api/v1/health"):
        with pytest.raises(WebSocketDenialResponse) as refusal:  # noqa: SIM117
            with client.websocket_connect(path):
                pass
        assert refusal.value.status_code == 404
        assert refusal.value.json()["code"] == "not_found"
        assert "/ws/asr" in refusal.value.json()["message"]


def test_a_page_of_another_site_is_refused() -> None:
    client = TestClient(create_app(cast(Server, SimpleNamespace()), {}))
    with pytest.raises(WebSocketDenialResponse) as refusal:  # noqa: SIM117
        with client.websocket_connect("/ws/asr/", headers={"Origin": "http://there"}):
            pass
    assert refusal.value.status_code == 403
    assert "ALLOWED_ORIGINS" in refusal.value.json()["message"]
