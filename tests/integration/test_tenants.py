"""Who may start, read, resume, finish, delete and list which session: a table over all routes and
dialects, with real clients, two tenants and each scope."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gateway.dialects.registry import DIALECTS
from gateway.web import auth_tokens
from gateway.web.auth_tokens import Access
from gateway.web.scopes import NEEDED, WEBSOCKET
from tests.gateway.web.test_auth import reported
from tests.integration.speech import Spoken, say, spoken
from tools.lab.harness.stack import Stack, wait_until

WHO: Final[dict[str, dict[str, Any]]] = {
    "owner": {"tenant": "acme"},
    "reader": {"tenant": "acme", "scopes": frozenset({"read"})},
    "speaker": {"tenant": "acme", "scopes": frozenset({"transcribe"})},
    "admin": {"tenant": "acme", "scopes": frozenset({"admin"})},
    "stranger": {"tenant": "other"},
    "default": {},
}
ANYBODY = dict.fromkeys(WHO, 200)
TRANSCRIBE = {"owner": 101, "speaker": 101, "stranger": 101, "default": 101}
READ = {"owner": 200, "reader": 200, "stranger": 404, "default": 404}
LIST = {"owner": 200, "reader": 200, "stranger": 200, "default": 200}
OPERATE = {"owner": 200, "admin": 200, "stranger": 200, "default": 200}
DELETE = {"owner": 200, "admin": 200, "stranger": 404, "default": 404}
TABLE: Final[dict[tuple[str, str], dict[str, int]]] = {
    **{(WEBSOCKET, path): TRANSCRIBE for path in DIALECTS},
    # Without a file.
    ("POST", "/v1/audio/transcriptions"): dict.fromkeys(TRANSCRIBE, 415),
    ("POST", "/v1/audio/translations"): dict.fromkeys(TRANSCRIBE, 400),
    ("POST", "/v1/listen"): dict.fromkeys(TRANSCRIBE, 400),
    ("POST", "/recognition"): dict.fromkeys(TRANSCRIBE, 415),
    ("POST", "/api/v1/asr/submit"): dict.fromkeys(TRANSCRIBE, 415),
    # It has not failed.
    ("POST", "/api/v1/asr/retry/{task_id}"): {
        **{"owner": 400, "speaker": 400},
        **{"stranger": 404, "default": 404},
    },
    ("GET", "/api/v1/asr/result/{task_id}"): READ,
    ("GET", "/api/v1/asr/history"): LIST,
    ("DELETE", "/api/v1/asr/task/{task_id}"): DELETE,
    ("GET", "/api/v1/history"): LIST,
    ("GET", "/api/v1/session/{session_id}"): READ,
    ("DELETE", "/api/v1/session/{session_id}"): DELETE,
    ("GET", "/api/v1/stats"): OPERATE,
    ("GET", "/api/v1/system"): OPERATE,
    ("GET", "/metrics"): OPERATE,
    ("GET", "/api/v1/admission"): ANYBODY,
    ("GET", "/api/v1/health"): ANYBODY,
    ("GET", "/api/v1/asr/queue/status"): ANYBODY,
    ("GET", "/v1/models"): ANYBODY,
    ("GET", "/v1/models/{name:path}"): dict.fromkeys(WHO, 404),
    ("POST", "/api/v1/export"): dict.fromkeys(WHO, 422),
}
"""Expected status by route and client; 403 where there is none. Sessions are the owner's."""


@dataclass(frozen=True)
class Shared:
    """A gateway with a token for each of ``WHO``, a session that runs and one that is stored."""

    address: str
    tokens: dict[str, str]
    live: str
    resume_token: str
    stored: str
    said: Spoken

    def headers(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def ask(self, who: str, path: str, method: str = "GET") -> httpx2.Response:
        url = f"http://{self.address}{path}"
        return httpx2.request(method, url, headers=self.headers(who), trust_env=False, timeout=30)

    def open(self, who: str, path: str = "/ws/asr") -> ClientConnection:
        url = f"ws://{self.address}{path}"
        return connect(url, additional_headers=self.headers(who), proxy=None)

    def listed(self, who: str) -> set[str]:
        found = self.ask(who, "/api/v1/history?limit=1000").json()
        return {record["session_id"] for record in found["records"]}


def exchange(socket: ClientConnection, message: dict[str, Any]) -> dict[str, Any]:
    socket.send(json.dumps(message))
    answer: dict[str, Any] = json.loads(socket.recv(timeout=30))
    return answer


@pytest.fixture(scope="module")
def shared(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    file = tmp_path_factory.mktemp("tenants") / "tokens"
    tokens = {who: auth_tokens.new_token() for who in WHO}
    allowed = {who: Access(digest=auth_tokens.hash_of(tokens[who]), **WHO[who]) for who in WHO}
    auth_tokens.write(file, allowed)
    process = stack.start("gateway5", AUTH_TOKENS_FILE=str(file))
    wait_until(lambda: stack.get("/readyz", "gateway5").status == 200, "gateway5 ready")
    address = f"127.0.0.1:{stack.ports['gateway5']}"
    said = spoken(7_101)
    head = {"Authorization": f"Bearer {tokens['owner']}"}
    with connect(f"ws://{address}/ws/asr", additional_headers=head, proxy=None) as socket:
        ack = exchange(socket, {"action": "start", "session_id": "tenants-live"})
        yield Shared(address, tokens, "tenants-live", ack["resume_token"], "tenants-stored", said)
    del stack.processes["gateway5"]
    assert process.terminate() == 0


@pytest.fixture(scope="module", autouse=True)
def stored(shared: Shared) -> None:
    url = f"ws://{shared.address}/ws/asr"
    token = shared.tokens["owner"]
    asyncio.run(say(url, shared.said, token=token, session_id=shared.stored))


def test_the_table_has_all_routes() -> None:
    assert set(TABLE) == set(NEEDED)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("method", "path"), TABLE)
def test_the_permissions_of_each_token(shared: Shared, method: str, path: str, who: str) -> None:
    expected = TABLE[method, path].get(who, 403)
    if method == WEBSOCKET:
        try:
            with shared.open(who, path):
                status, body = 101, b""
        except InvalidStatus as refused:
            status, body = refused.response.status_code, bytes(refused.response.body or b"")
        assert status == expected, body
    else:
        deletes = method == "DELETE" and expected == 200
        for session_id in ("unknown",) if deletes else (shared.live, shared.stored):
            asked = re.sub(r"\{\w+_id\}", session_id, path).replace("{name:path}", "x/y")
            answer = shared.ask(who, asked, method)
            status, body = answer.status_code, answer.content
            assert status == (404 if deletes else expected), body
    if expected == 403:
        assert reported(json.loads(body))[0] == "insufficient_scope"


def test_a_foreign_session_answers_as_an_unknown_one(shared: Shared) -> None:
    for session_id in (shared.live, shared.stored):
        for method in ("GET", "DELETE"):
            foreign = shared.ask("stranger", f"/api/v1/session/{session_id}", method)
            unknown = shared.ask("stranger", "/api/v1/session/no-such-session", method)
            assert (foreign.status_code, foreign.content) == (404, unknown.content)


def test_history_and_search_list_the_tenant_s_sessions_only(shared: Shared) -> None:
    wait_until(lambda: {shared.live, shared.stored} <= shared.listed("owner"), "both are stored")
    for who in ("stranger", "default"):
        assert not {shared.live, shared.stored} & shared.listed(who)
    word = shared.said.text.split()[0]
    found = shared.ask("stranger", f"/api/v1/history?q={word}").json()
    assert (found["total"], found["records"]) == (0, [])


@pytest.mark.parametrize("session", ["live", "stored"])
@pytest.mark.parametrize("who", ["stranger", "default"])
def test_a_foreign_session_cannot_be_resumed_started_or_finished(
    shared: Shared, who: str, session: str
) -> None:
    session_id = getattr(shared, session)
    start = {"action": "start", "session_id": session_id}
    with shared.open(who) as socket:
        answer = exchange(socket, {**start, "resume_token": shared.resume_token})
        assert (answer["type"], answer["code"]) == ("error", "not_resumable")
        answer = exchange(socket, start)
        assert (answer["type"], answer["code"]) == ("error", "session_exists")
        answer = exchange(socket, {"action": "finish", "session_id": session_id})
        assert answer["type"] == "error"
    shown = shared.ask("owner", f"/api/v1/session/{session_id}").json()
    assert shown["session_id"] == session_id
    assert shown.get("live", False) is (session == "live")


def test_the_owner_resumes_finishes_and_deletes(shared: Shared) -> None:
    """Last, because it ends the sessions of the other tests."""
    start = {"action": "start", "session_id": shared.live, "resume_token": shared.resume_token}
    with shared.open("speaker") as socket:
        assert exchange(socket, start)["status"] == "session_resumed"
        answer = exchange(socket, {"action": "finish", "session_id": shared.live})
        assert answer["type"] == "final_result"
    for session_id in (shared.live, shared.stored):
        deleted = shared.ask("admin", f"/api/v1/session/{session_id}", "DELETE")
        assert deleted.status_code in (200, 202)
        path = f"/api/v1/session/{session_id}"
        wait_until(lambda path=path: shared.ask("owner", path).status_code == 404, "it is gone")  # type: ignore[misc]
