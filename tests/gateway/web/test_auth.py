"""The check by itself, and around every route of the gateway; with real clients it is tested in
tests/integration/test_access.py."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route, WebSocketRoute

from gateway.admission.policy import Refusal
from gateway.dialects.registry import DIALECTS
from gateway.server import Server
from gateway.storage.callers import Caller
from gateway.telemetry.metrics import REFUSED
from gateway.web import auth_tokens
from gateway.web.app import create_app
from gateway.web.auth import (
    EXPIRED,
    MESSAGE,
    UNKNOWN,
    TokenCheck,
    is_open,
    shown_tokens,
    without_token,
)
from gateway.web.auth_tokens import Access, AuthTokens

TOKEN = auth_tokens.new_token()


async def allowing(_caller: Caller) -> Refusal | None:
    return None


SERVER = cast(Server, SimpleNamespace(quotas=SimpleNamespace(refuse_request=allowing)))
OPEN = {
    "/",
    "/dashboard",
    "/docs",
    "/openapi.json",
    "/health",
    "/asyncapi.json",
    "/livez",
    "/readyz",
    "/static/{name}",
}
LIMITED = {"/api/v1/health"}
"""Repeated here on purpose: opening another path takes a change in two places."""


@pytest.fixture
def known(tmp_path: Path) -> AuthTokens:
    return holding(tmp_path)


def holding(folder: Path, **limits: Any) -> AuthTokens:
    """A file with ``TOKEN``, which has these ``limits``."""
    access = Access(digest=auth_tokens.hash_of(TOKEN), **limits)
    auth_tokens.write(folder / "tokens", {"anna": access})
    return AuthTokens(folder / "tokens")


@pytest.fixture
def app(known: AuthTokens) -> FastAPI:
    return create_app(SERVER, {}, known)


def request(path: str, method: str = "GET", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": list(headers),
    }


def upgrade(path: str, *headers: tuple[bytes, bytes], offers: tuple[str, ...] = ()) -> Any:
    offered = [(b"sec-websocket-protocol", ", ".join(offers).encode())] if offers else []
    return {
        "type": "websocket",
        "path": path,
        "query_string": b"",
        "headers": [*headers, *offered],
        "subprotocols": list(offers),
        "extensions": {"websocket.http.response": {}},
    }


def bearer(token: str) -> tuple[bytes, bytes]:
    return (b"authorization", b"Bearer " + token.encode())


def basic(pair: str) -> tuple[bytes, bytes]:
    return (b"authorization", b"Basic " + base64.b64encode(pair.encode()))


async def answer_of(app: Any, scope: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("nothing of a refused request is read")

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    head, body = sent
    headers = {name.decode(): value.decode() for name, value in head["headers"]}
    return head["status"], headers, json.loads(body["body"])


def reported(body: dict[str, Any]) -> tuple[str, str]:
    """Code and message of an error answer, in each API's form."""
    if "err_code" in body:
        code = body["err_code"]
        return "unauthorized" if code == "INVALID_AUTH" else code.lower(), body["err_msg"]
    if "msg" in body:
        code, _, message = body["msg"].partition(": ")
        return code, message
    error = body["error"] if isinstance(body["error"], dict) else body
    return error["code"], error["message"]


def of(route: BaseRoute) -> list[tuple[str, dict[str, Any]]]:
    """Return each request that ``route`` answers: its path in the code, and a scope."""
    assert isinstance(route, Route | WebSocketRoute), "of any other kind the test knows nothing"
    path = re.sub(r"\{\w+\}", "x", route.path)
    if isinstance(route, WebSocketRoute):
        return [(route.path, upgrade(path))]
    return [(route.path, request(path, method)) for method in sorted(route.methods or ())]


async def test_every_route_needs_a_token_unless_listed_as_open(app: FastAPI) -> None:
    requests = [pair for route in app.routes for pair in of(route)]
    assert {path for path, scope in requests if scope["type"] == "websocket"} == {
        *("/", "/v1/listen", "/v1/realtime", "/vosk", "/ws/asr")
    }
    assert {path for path, scope in requests if is_open(scope)} == OPEN
    closed = [scope for _, scope in requests if not is_open(scope)]
    assert len(closed) > 10
    for scope in closed:
        for shown in ([], [bearer("wrong")]):
            if not shown and scope["path"] in LIMITED:
                continue  # Answers with less: tests/gateway/web/test_health.py.
            before = REFUSED.labels("unauthorized")._value.get()
            status, headers, body = await answer_of(app, {**scope, "headers": shown})
            assert status == 401
            assert headers["www-authenticate"].startswith("Bearer")
            assert reported(body) == ("unauthorized", UNKNOWN if shown else MESSAGE)
            assert REFUSED.labels("unauthorized")._value.get() == before + 1


@pytest.mark.parametrize(
    "scope",
    [
        request("/no/such/path"),
        request("/static"),
        request("//static/app.js"),
        request("/livez", "POST"),
        request("/", "OPTIONS"),
        request("/dashboard", "DELETE"),
        upgrade("/static/app.js"),
        upgrade("/livez"),
    ],
    ids=lambda scope: f"{scope['type']}-{scope.get('method', '')}-{scope['path']}",
)
async def test_other_paths_need_a_token(app: FastAPI, scope: dict[str, Any]) -> None:
    assert (await answer_of(app, scope))[0] == 401


async def test_a_wrong_token_is_distinguished_from_none(app: FastAPI) -> None:
    async def challenge(*headers: tuple[bytes, bytes]) -> tuple[str, str]:
        scope = request("/api/v1/history", "GET", *headers)
        _status, answer, body = await answer_of(app, scope)
        return answer["www-authenticate"], body["message"]

    assert await challenge() == ("Bearer", MESSAGE)
    assert await challenge((b"authorization", b"Digest x")) == ("Bearer", MESSAGE)
    assert await challenge(bearer("x")) == ('Bearer error="invalid_token"', UNKNOWN)
    assert await challenge(basic("anna:x")) == ('Bearer error="invalid_token"', UNKNOWN)


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        (request("/x", "GET", bearer("abc")), ["abc"]),
        (request("/x", "GET", (b"authorization", b"bEARER   abc ")), ["abc"]),
        (request("/x", "GET", basic("anna:abc")), ["abc"]),
        (request("/x", "GET", basic(":a:b")), ["a:b"]),
        (request("/x", "GET", basic("anna")), [""]),
        (request("/x", "GET", (b"authorization", b"Basic %%%")), []),
        (request("/x", "GET", (b"authorization", b"Basic /////w==")), []),
        (request("/x", "GET", (b"authorization", b"Bearer")), [""]),
        (request("/x", "GET", (b"authorization", b"")), []),
        (request("/x?token=abc", "GET", (b"x-api-key", b"abc")), []),
        (upgrade("/x", offers=("asr", "bearer.abc")), ["abc"]),
        (upgrade("/x", offers=("bearer.abc", "asr", "bearer.def")), ["abc"]),
        (upgrade("/x", offers=("realtime", "openai-insecure-api-key.a.b")), ["a.b"]),
        (upgrade("/x", basic("proxy:own"), offers=("asr", "bearer.abc")), ["own", "abc"]),
        (upgrade("/x", offers=("binary",)), []),
        (request("/x", "GET", (b"authorization", b"Token abc")), ["abc"]),
        (upgrade("/x", offers=("token", "abc")), ["abc"]),
        (upgrade("/x", offers=("bearer", "abc")), ["abc"]),
        (upgrade("/x", offers=("token",)), []),
    ],
)
def test_where_a_token_may_stand(scope: dict[str, Any], shown: list[str]) -> None:
    assert shown_tokens(scope) == shown


@pytest.mark.parametrize(
    "scope",
    [
        request("/x", "GET", bearer(TOKEN), (b"accept", b"*/*")),
        upgrade("/x", basic(f"anybody:{TOKEN}"), offers=("binary",)),
        upgrade("/x", (b"Authorization", b"Basic ?"), offers=("asr", f"bearer.{TOKEN}")),
        upgrade("/x", offers=("token", TOKEN)),
    ],
)
async def test_a_caller_has_a_name_and_no_token(known: AuthTokens, scope: dict[str, Any]) -> None:
    passed: list[tuple[Any, Any]] = []

    async def inner(scope: Any, _receive: Any, _send: Any) -> None:
        passed.append((scope, structlog.contextvars.get_contextvars()))

    await TokenCheck(inner, known, None, allowing)(scope, cast(Any, None), cast(Any, None))
    (got, variables) = passed[0]
    assert variables["token_name"] == "anna"
    assert "token_name" not in structlog.contextvars.get_contextvars()
    assert TOKEN not in repr(got) and b"Basic" not in repr(got).encode()
    assert got["path"] == "/x"
    assert [name for name, _ in got["headers"]] in ([b"accept"], [])
    assert got.get("subprotocols") in (None, ["binary"], ["asr"], ["token"])
    assert got.pop("state") == {"caller": Caller(token_name="anna")}
    assert scope == {
        **got,
        **{name: scope[name] for name in ("headers", "subprotocols") & scope.keys()},
    }


def test_nothing_else_is_changed() -> None:
    scope = request("/x", "GET", (b"origin", b"http://a"))
    assert without_token(scope) == scope


async def test_a_token_that_is_not_text_is_refused(app: FastAPI) -> None:
    scope = upgrade("/ws/asr", offers=("bearer.x",))
    scope["subprotocols"] = ["bearer.\udcff"]
    assert (await answer_of(app, scope))[0] == 401


def test_openapi_describes_the_token(app: FastAPI) -> None:
    described = app.openapi()
    assert {scheme["scheme"] for scheme in described["components"]["securitySchemes"].values()} == {
        *("bearer", "basic")
    }
    assert {} not in described["security"]
    assert {} in create_app(SERVER, {}).openapi()["security"]
    operations = [o for path in described["paths"].values() for o in path.values()]
    assert operations and all({"401", "403"} <= {*o["responses"]} for o in operations)


async def test_a_token_without_the_scope_gets_403_in_the_form_of_the_api(tmp_path: Path) -> None:
    known = holding(tmp_path, scopes=frozenset({"read"}))
    app = create_app(SERVER, {}, known)
    refused = [
        (upgrade("/ws/asr", bearer(TOKEN)), "transcribe"),
        (upgrade("/v1/listen", bearer(TOKEN)), "transcribe"),
        (request("/v1/audio/transcriptions", "POST", bearer(TOKEN)), "transcribe"),
        (request("/api/v1/session/x", "DELETE", bearer(TOKEN)), "admin"),
        (request("/metrics", "GET", bearer(TOKEN)), "admin"),
    ]
    for scope, needed in refused:
        before = REFUSED.labels("insufficient_scope")._value.get()
        status, headers, body = await answer_of(app, scope)
        code, message = reported(body)
        assert (status, code) == (403, "insufficient_scope")
        assert needed in message
        assert headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'
        assert REFUSED.labels("insufficient_scope")._value.get() == before + 1


async def test_an_expired_token_gets_401(tmp_path: Path) -> None:
    known = holding(tmp_path, expires=datetime(2026, 1, 1, tzinfo=UTC))
    app = create_app(SERVER, {}, known)
    status, headers, body = await answer_of(app, request("/x", "GET", bearer(TOKEN)))
    assert (status, body["code"], body["message"]) == (401, "unauthorized", EXPIRED)
    assert headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_too_many_requests_get_429_in_the_form_of_the_api(known: AuthTokens) -> None:
    refusal = Refusal(code="too_many_requests", message="too many", retry_after_s=1, status=429)

    async def refuse(caller: Caller) -> Refusal | None:
        assert caller.token_name == "anna"
        return refusal

    server = SimpleNamespace(quotas=SimpleNamespace(refuse_request=refuse))
    app = create_app(cast(Server, server), {}, known)
    before = REFUSED.labels("too_many_requests")._value.get()
    scopes = [
        *(upgrade(path, bearer(TOKEN)) for path in DIALECTS),
        request("/v1/models", "GET", bearer(TOKEN)),
        request("/v1/listen", "POST", bearer(TOKEN)),
        request("/api/v1/history", "GET", bearer(TOKEN)),
    ]
    for scope in scopes:
        status, headers, body = await answer_of(app, scope)
        assert (status, headers["retry-after"]) == (429, "1")
        assert reported(body) == ("too_many_requests", "too many")
    assert REFUSED.labels("too_many_requests")._value.get() == before + len(scopes)
