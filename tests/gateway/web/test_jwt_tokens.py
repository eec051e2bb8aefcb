"""Tokens of an identity provider, signed here with keys of each kind."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.admission.policy import Refusal
from gateway.server import Server
from gateway.storage.callers import Caller
from gateway.web import jwt_tokens
from gateway.web.app import create_app
from gateway.web.auth_tokens import SCOPES
from gateway.web.errors import RefusedError
from gateway.web.jwt_tokens import JwtRefusedError, JwtTokens, is_jwt
from tests.gateway.web.test_auth import TOKEN, answer_of, bearer, request
from tools.lab.harness.process import wait_until

ISSUER, AUDIENCE = "https://id.example.org", "asr"
NOWHERE = "http://127.0.0.1:9/keys"
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "PS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
"""By algorithm, which is the key's name too."""
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHARED_SECRET = "0123456789abcdef0123456789abcdef"


class Provider(BaseHTTPRequestHandler):
    """Serves the keys of ``show``."""

    body = b""
    url = ""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(type(self).body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def show(keys: type[Provider], *names: str) -> None:
    found = []
    for name in names:
        to_jwk = jwt.get_algorithm_by_name(name).to_jwk
        public = json.loads(to_jwk(KEYS[name].public_key()))
        found.append({**public, "kid": name, "alg": name, "use": "sig"})
    # A secret that provider and clients share, which is no key for us.
    encoded = jwt.utils.base64url_encode(SHARED_SECRET.encode()).decode()
    found.append({"kty": "oct", "k": encoded, "kid": "HS256", "alg": "HS256"})
    keys.body = json.dumps({"keys": found}).encode()


@pytest.fixture
def keys() -> Iterator[type[Provider]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        Provider.url = f"http://127.0.0.1:{server.server_port}/keys"
        show(Provider, *KEYS)
        yield Provider
        server.shutdown()


@pytest.fixture
def tokens(keys: type[Provider]) -> JwtTokens:
    return JwtTokens(keys_url=keys.url, issuer=ISSUER, audience=AUDIENCE, tenant_claim="")


def token(name: str = "RS256", key: Any = None, kid: str | None = "", **changed: Any) -> str:
    """A token signed with the key ``name``; claims that are None are missing."""
    now_s = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": now_s + 600, "iat": now_s}
    claims |= {"scope": "openid transcribe read"} | changed
    claims = {claim: value for claim, value in claims.items() if value is not None}
    headers = {} if kid is None else {"kid": kid or name}
    return jwt.encode(claims, key or KEYS[name], algorithm=name, headers=headers)


@pytest.mark.parametrize("name", KEYS)
async def test_a_token_of_the_provider_is_valid(tokens: JwtTokens, name: str) -> None:
    shown = token(name)
    assert is_jwt(shown) and not is_jwt(TOKEN)
    subject, access = await tokens.find(shown)
    assert subject == "anna" and access.tenant == "default"
    assert access.scopes == {"transcribe", "read"}
    assert access.expires is not None
    assert 590 < access.expires.timestamp() - jwt_tokens.LEEWAY_S - time.time() <= 600


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "admin"}, {"admin"}),
        ({"scope": None, "scp": ["read", "transcribe"]}, {"read", "transcribe"}),
        ({"scope": None, "scp": "read"}, {"read"}),
        ({"scope": "readme transcriber"}, set()),
        ({"scope": None}, set()),
        ({"scope": 5}, set()),
    ],
)
async def test_scopes_are_those_of_ours(
    tokens: JwtTokens, claims: dict[str, Any], scopes: set[str]
) -> None:
    _, access = await tokens.find(token(**claims))
    assert access.scopes == scopes <= set(SCOPES)


def wrong_tokens() -> dict[str, str]:
    """Made when they are shown, because they expire."""
    now_s = int(time.time())
    return {
        "key": token(key=OTHER),
        "unknown key": token(kid="RS1024"),
        "no key": token(kid=None),
        "issuer": token(iss="https://id.example.com"),
        "audience": token(aud="other"),
        "no audience": token(aud=None),
        "expired": token(exp=now_s - 60),
        "no expiry": token(exp=None),
        "expiry of another type": token(exp="soon"),
        "expiry in milliseconds": token(exp=(now_s + 600) * 1_000),
        "expiry after all times": token(exp=10**30),
        "not yet": token(nbf=now_s + 3600),
        "made in the future": token(iat=now_s + 3600),
        "no subject": token(sub=None),
        "empty subject": token(sub=""),
        "subject of two lines": token(sub="anna\nbert"),
        "no signature": jwt.encode({"sub": "anna"}, "", algorithm="none", headers={"kid": "RS256"}),
        "shared secret": token("HS256", SHARED_SECRET),
        "key of another algorithm": token("ES256", kid="RS256"),
        "parts": "a.b.c",
        "surrogate": "\udcff.b.c",
    }


@pytest.mark.parametrize("wrong", list(wrong_tokens()))
async def test_everything_else_is_refused(tokens: JwtTokens, wrong: str) -> None:
    with pytest.raises(JwtRefusedError) as refusal:
        await tokens.find(wrong_tokens()[wrong])
    assert ("expired" in str(refusal.value)) == (wrong == "expired")


async def test_the_tenant_is_a_claim(keys: type[Provider]) -> None:
    tokens = JwtTokens(keys_url=keys.url, issuer=ISSUER, audience=AUDIENCE, tenant_claim="org")
    _, access = await tokens.find(token(org="acme"))
    assert access.tenant == "acme"
    for claims in ({}, {"org": "a b"}, {"org": ["acme"]}):
        with pytest.raises(JwtRefusedError, match="tenant"):
            await tokens.find(token(**claims))


async def test_keys_are_rotated(keys: type[Provider], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwt_tokens, "FETCH_EVERY_S", 0.0)
    show(keys, "RS256")
    tokens = JwtTokens(keys_url=keys.url, issuer=ISSUER, audience=AUDIENCE, tenant_claim="")
    await tokens.find(token("RS256"))
    with pytest.raises(JwtRefusedError):
        await tokens.find(token("ES256"))
    show(keys, "ES256")
    await tokens.find(token("ES256"))
    with pytest.raises(JwtRefusedError):
        await tokens.find(token("RS256"))


async def test_without_keys_nothing_is_decided_and_one_line_is_logged() -> None:
    tokens = JwtTokens(keys_url=NOWHERE, issuer=ISSUER, audience=AUDIENCE, tenant_claim="")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(RefusedError):
                await tokens.find(token())
    assert [log["event"] for log in logs] == ["jwt_keys_unavailable"]


def test_keys_that_cannot_be_fetched_are_logged_before_the_first_token() -> None:
    tokens = JwtTokens(keys_url=NOWHERE, issuer=ISSUER, audience=AUDIENCE, tenant_claim="")
    with structlog.testing.capture_logs() as logs:
        tokens.fetch_early()
        wait_until(lambda: bool(logs), "a line", 20)
    assert [log["event"] for log in logs] == ["jwt_keys_unavailable"]
    assert "refused" in logs[0]["error"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"keys": []}', b"\xff"])
async def test_an_answer_without_keys_is_not_the_tokens_fault(
    keys: type[Provider], tokens: JwtTokens, body: bytes
) -> None:
    keys.body = body
    with pytest.raises(RefusedError):
        await tokens.find(token())


async def test_a_failed_fetch_for_an_unknown_key_leaves_known_ones(
    keys: type[Provider], tokens: JwtTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens._keys, "cooldown_duration", 0.0)
    await tokens.find(token("RS256"))
    keys.body = b"<html>"
    with pytest.raises((RefusedError, JwtRefusedError)):
        await tokens.find(jwt.encode({}, KEYS["RS256"], "RS256", headers={"kid": "unknown"}))
    await tokens.find(token("RS256"))


async def test_a_provider_that_does_not_answer_delays_nothing_else(
    keys: type[Provider], tokens: JwtTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Event()
    monkeypatch.setattr(tokens._keys, "cooldown_duration", 0.0)
    await tokens.find(token("RS256"))
    monkeypatch.setattr(tokens._keys, "fetch_data", answers.wait)
    # More than asyncio has threads for all that would block.
    waiting = [asyncio.create_task(tokens.find(token(kid=f"unknown-{n}"))) for n in range(64)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await tokens.find(token("RS256"))
            await asyncio.to_thread(answers.is_set)
        assert not any(task.done() for task in waiting)
    finally:
        for task in waiting:
            task.cancel()
        answers.set()


async def allowing(_caller: Caller) -> Refusal | None:
    return None


SERVER = cast(Server, SimpleNamespace(quotas=SimpleNamespace(refuse_request=allowing)))


async def test_the_application_asks_for_such_a_token(tokens: JwtTokens) -> None:
    app = create_app(SERVER, {}, provider=tokens)
    status, headers, body = await answer_of(app, request("/api/v1/stats"))
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    shown = request("/api/v1/stats", "GET", bearer(token(iss="https://id.example.com")))
    status, headers, body = await answer_of(app, shown)
    assert (status, headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert "issuer" in body["message"].lower()
    # Valid, but without the scope.
    status, _, body = await answer_of(app, request("/api/v1/stats", "GET", bearer(token())))
    assert (status, body["code"]) == (403, "insufficient_scope")
    # A token of the file, of which there is none.
    status, _, _ = await answer_of(app, request("/api/v1/stats", "GET", bearer(TOKEN)))
    assert status == 401


async def test_without_keys_the_application_answers_503_with_retry_after() -> None:
    tokens = JwtTokens(keys_url=NOWHERE, issuer=ISSUER, audience=AUDIENCE, tenant_claim="")
    app = create_app(SERVER, {}, provider=tokens)
    shown = request("/v1/models", "GET", bearer(token()))
    status, headers, body = await answer_of(app, shown)
    assert (status, headers["retry-after"]) == (503, "5")
    assert body["error"]["code"] == "keys_unavailable"
