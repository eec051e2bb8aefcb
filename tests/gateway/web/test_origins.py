"""Which web origins may connect, behind which proxies, and what their scripts may read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from starlette.testclient import TestClient

from gateway.server import Server
from gateway.web.app import create_app
from gateway.web.auth_tokens import AuthTokens
from gateway.web.origins import WebOrigins


def allows(origin: str | None, host: str, allowed: str = "", **headers: str) -> bool:
    sent = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if origin is not None:
        sent["origin"] = origin
    return WebOrigins(allowed).allow(sent)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "asr.example"),
        ("http://asr.example", "asr.example"),
        ("https://asr.example", "asr.example"),
        ("https://asr.example", "asr.example:443"),
        ("http://asr.example", "asr.example:80"),
        ("http://asr.example:8080", "asr.example:8080"),
        ("https://asr.example", "ASR.Example"),
        ("https://ASR.example:443", "asr.example."),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
    ],
)
def test_the_gateways_own_pages_may_connect(origin: str | None, host: str) -> None:
    assert allows(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "asr.example"),
        ("http://asr.example.evil.example", "asr.example"),
        ("http://asr.example:81", "asr.example"),
        ("https://asr.example", "asr.example:80"),
        ("http://asr.example@evil.example", "asr.example"),
        ("null", ""),
        ("", ""),
        ("http://", ""),
        ("http://[", "["),
        ("http://[::1", "here"),
        ("http://here:x", "here:x"),
        ("\u00ff", "here"),
        ("file://", ""),
    ],
)
def test_others_may_not(origin: str, host: str) -> None:
    assert not allows(origin, host)
    assert not allows(origin, host, "http://there")


def test_a_proxy_passes_on_the_host_or_the_browser_reports_that_it_is_the_same() -> None:
    assert not allows("https://asr.example", "127.0.0.1:8080")
    forwarded = "asr.example, inner:8080"
    assert allows("https://asr.example", "127.0.0.1:8080", x_forwarded_host=forwarded)
    assert allows("https://asr.example", "127.0.0.1:8080", sec_fetch_site="same-origin")
    assert not allows("https://evil.example", "127.0.0.1:8080", sec_fetch_site="same-site")
    assert not allows("https://evil.example", "127.0.0.1:8080", sec_fetch_site="cross-site")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://there", "http://other, http://there"),
        ("https://there", "HTTPS://There:443/"),
        ("null", "null"),
        ("x", "*"),
    ],
)
def test_the_setting_names_further_origins(origin: str, allowed: str) -> None:
    assert allows(origin, "here", allowed)


def client(allowed: str) -> TestClient:
    tokens = cast(AuthTokens, SimpleNamespace(find=lambda _token, _now_s: None))
    stub = cast(Server, SimpleNamespace())
    return TestClient(create_app(stub, {}, tokens, origins=WebOrigins(allowed)))


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,x-stainless-lang",
}


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/api/v1/session/a"])
def test_scripts_of_allowed_origins_ask_first_and_read_the_answers(path: str) -> None:
    there = {"Origin": "https://there"}
    asking = client("https://There:443").options(path, headers={**there, **PREFLIGHT})
    assert asking.status_code == 200
    assert asking.headers["Access-Control-Allow-Origin"] == "https://there"
    assert "authorization" in asking.headers["Access-Control-Allow-Headers"]
    assert "DELETE" in asking.headers["Access-Control-Allow-Methods"]
    # A preflight has no token; the request needs one, and the script can read that.
    answer = client("https://there").get(path, headers=there)
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == "https://there"
    assert "X-Session-Id" in answer.headers["Access-Control-Expose-Headers"]


def test_other_scripts_cannot_read_anything() -> None:
    for allowed in ("", "https://there"):
        evil = {"Origin": "https://evil"}
        for answer in (
            client(allowed).options("/v1/models", headers={**evil, **PREFLIGHT}),
            client(allowed).get("/v1/models", headers=evil),
        ):
            assert answer.status_code in (400, 401)
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_with_any_origin_no_page_uses_the_credentials_of_a_browser() -> None:
    headers = {"Origin": "https://evil", "Cookie": "a=b"}
    for answer in (
        client("*").options("/v1/models", headers={**headers, **PREFLIGHT}),
        client("*").get("/v1/models", headers=headers),
    ):
        # Browsers send no stored password, and show no answer to one, with these headers.
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/audio/transcriptions"),
        ("POST", "/v1/listen"),
        ("POST", "/recognition"),
        ("POST", "/api/v1/asr/submit"),
        ("DELETE", "/api/v1/session/a"),
    ],
)
def test_pages_of_other_sites_change_nothing(method: str, path: str) -> None:
    """A form or ``fetch`` in mode ``no-cors`` sends them without a preflight."""
    app = create_app(cast(Server, SimpleNamespace()), {})
    sending = TestClient(app, base_url="http://localhost:8080", raise_server_exceptions=False)

    def status(**headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return sending.request(method, path, headers=sent).status_code

    assert status(origin="https://evil") == 403
    assert status(origin="null") == 403
    assert status(origin="https://evil", authorization="Basic YTpi") == 403
    # Its own pages, clients that are no browser, and pages that know a token.
    assert status(origin="http://localhost:8080") != 403
    assert status(origin="https://proxied", sec_fetch_site="same-origin") != 403
    assert status() != 403
    assert status(origin="chrome-extension://a", authorization="Bearer any") != 403


def test_the_answer_to_a_refused_page_names_the_setting() -> None:
    app = create_app(cast(Server, SimpleNamespace()), {})
    answer = TestClient(app, base_url="http://localhost").post(
        "/v1/audio/transcriptions", headers={"Origin": "https://evil"}
    )
    error = answer.json()["error"]
    assert error["code"] == "origin_refused" and "ALLOWED_ORIGINS" in error["message"]
