from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from gateway.admission.policy import Refusal
from gateway.dialects.registry import DIALECTS
from gateway.server import Server
from gateway.web.app import create_app
from gateway.web.errors import refused
from persistence.reads import StoreUnavailable


class NoDatabase:
    async def history(self, _asked: object) -> None:
        raise StoreUnavailable("the database does not answer")

    async def status(self, _session_id: str, _tenant: str) -> None:
        raise ZeroDivisionError


@pytest.fixture
def client() -> TestClient:
    server = SimpleNamespace(reader=NoDatabase(), is_here=lambda _session_id, _tenant: False)
    return TestClient(create_app(cast(Server, server), {}), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/api/v1/history", 405, "method_not_allowed"),
        ("GET", "/api/v1/history?limit=0&q=!", 422, "invalid_request"),
        ("GET", "/api/v1/session/%20", 422, "invalid_request"),
        ("GET", "/api/v1/history", 503, "store_unavailable"),
        ("DELETE", "/api/v1/session/s", 500, "internal_error"),
    ],
)
def test_errors_have_one_form(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    retry = {"retry_after_s"} if status == 503 else set()
    assert body.keys() == {"code", "message", "error"} | retry
    assert body["message"] == body["error"]


REFUSAL = Refusal(code="overloaded", message="no", retry_after_s=7)
OPENAIS = {"error": {"message": "no", "type": "server_error", "param": None, "code": "overloaded"}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/ws/asr",
            {"code": "overloaded", "message": "no", "error": "no", "retry_after_s": 7},
        ),
        ("/v1/realtime/", OPENAIS),
        ("/v1/listen", {"err_code": "OVERLOADED", "err_msg": "no"}),
        ("/v1/listen/", {"err_code": "OVERLOADED", "err_msg": "no"}),
        ("/recognition", {"code": 1, "msg": "overloaded: no"}),
    ],
)
def test_a_refusal_has_the_form_of_its_path(path: str, body: dict[str, Any]) -> None:
    response = refused(path, REFUSAL)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
    reported = json.loads(bytes(response.body))
    reported.pop("request_id", None)
    assert reported == body


@pytest.mark.parametrize(
    ("path", "headers", "status", "keys"),
    [
        ("/v1/nothing", {}, 404, {"error"}),
        ("/v1/realtime", {"Origin": "http://there"}, 403, {"error"}),
        ("/v1/listen", {"Origin": "http://there"}, 403, {"err_code", "err_msg", "request_id"}),
    ],
)
def test_websockets_of_v1_are_refused_in_the_form_of_their_path(
    client: TestClient, path: str, headers: dict[str, str], status: int, keys: set[str]
) -> None:
    with pytest.raises(WebSocketDenialResponse) as refusal:  # noqa: SIM117
        with client.websocket_connect(path, headers=headers):
            pass
    assert refusal.value.status_code == status
    assert refusal.value.json().keys() == keys


@pytest.mark.parametrize("path", sorted(set(DIALECTS) - {"/"}))
def test_a_request_for_a_websocket_without_an_upgrade_names_the_proxy(
    client: TestClient, path: str
) -> None:
    for asked in (path, f"{path}/"):
        answer = client.get(asked)
        assert (answer.status_code, answer.headers["Upgrade"]) == (426, "websocket")
        assert "reverse proxy" in answer.text and "upgrade_required" in answer.text.lower()


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nothing"), ("DELETE", "/v1/models")])
def test_errors_of_v1_have_the_form_of_openai(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code in (404, 405)
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_each_invalid_parameter_is_named(client: TestClient) -> None:
    message = client.get("/api/v1/history?limit=0&offset=x").json()["message"]
    assert message.startswith("limit: Input should be") and "; offset: Input should" in message


def test_a_refused_method_is_answered_with_all_methods_of_the_path(client: TestClient) -> None:
    answer = client.put("/api/v1/session/s")
    assert answer.headers["Allow"] == "DELETE, GET, HEAD"
    assert client.post("/").headers["Allow"] == "GET, HEAD"


def test_without_the_database_503_has_retry_after(client: TestClient) -> None:
    assert client.get("/api/v1/history").headers["Retry-After"] == "2"
