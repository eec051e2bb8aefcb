from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from gateway.web.host_check import HostCheck, name_in

NAMES = ("asr.example.org", "*.internal.example")


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = FastAPI()

    @app.api_route("/api/v1/history", methods=["GET", "DELETE"])
    def history() -> str:
        return "history"

    @app.websocket("/ws/asr")
    async def speech(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    app.add_middleware(HostCheck, names=NAMES)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:8080", "10.1.2.3", "[::1]:8080", "localhost:8080", "me.localhost", "gateway"),
        *("asr.example.org", "ASR.example.org.:443", "a.b.internal.example", ""),
        f"{socket.gethostname()}:8080",
    ],
)
def test_names_of_this_server(client: TestClient, host: str) -> None:
    assert client.get("/api/v1/history", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["rebound.attacker.example:8080", "example.org", "internal.example", "127.0.0.1.nip.example"],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_other_names_are_refused_and_the_setting_is_named(
    client: TestClient, host: str, method: str
) -> None:
    answer = client.request(method, "/api/v1/history", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["code"] == "host_refused"
    assert "ALLOWED_HOSTS" in answer.json()["message"]
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/ws/asr", headers={"Host": host}),
    ):
        pass
    assert denied.value.status_code == 421


def test_openai_clients_get_their_form_of_error(client: TestClient) -> None:
    answer = client.get("/v1/models", headers={"Host": "attacker.example"})
    assert "ALLOWED_HOSTS" in answer.json()["error"]["message"]


def test_every_name_can_be_allowed() -> None:
    async def app(*_: object) -> None: ...

    assert HostCheck(app, ["*"]).allows("any.example")


def test_names_in_headers() -> None:
    assert name_in("[fe80::1]:80") == "fe80::1"
    assert name_in(" Example.org.:80 ") == "example.org"
