"""A trailing slash, and HEAD."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from gateway.server import Server
from gateway.session.models import ServedModels
from gateway.web.app import create_app
from gateway.web.auth_tokens import AuthTokens


def client(*, guarded: bool = False) -> TestClient:
    tokens = SimpleNamespace(find=lambda _token, _now_s: None) if guarded else None
    stub = cast(Server, SimpleNamespace(models=ServedModels("demo", ["demo"])))
    app = create_app(stub, {}, cast(AuthTokens, tokens))
    return TestClient(app, follow_redirects=False)


@pytest.mark.parametrize("path", ["/livez", "/livez/", "/livez//", "/v1/models/", "/docs/"])
def test_a_trailing_slash_and_head(path: str) -> None:
    answer = client().get(path)
    assert answer.status_code == 200 and answer.content
    head = client().head(path)
    assert head.status_code == 200 and not head.content
    assert head.headers["Content-Length"] == answer.headers["Content-Length"]


def test_head_of_what_has_no_get_is_refused_as_get() -> None:
    assert client().head("/v1/audio/transcriptions").status_code == 405
    assert client().head("/nowhere").status_code == 404


def test_access_control_sees_the_path_that_is_routed() -> None:
    for path in ("/v1/models", "/v1/models/", "/livez/v1/models", "/static/../v1/models/"):
        assert client(guarded=True).get(path).status_code in (401, 404)
        assert client(guarded=True).head(path).status_code in (401, 404)
    assert client(guarded=True).get("/livez/").status_code == 200


def test_a_websocket_may_end_with_a_slash() -> None:
    # It reaches the check of its origin.
    with pytest.raises(WebSocketDenialResponse) as refusal:  # noqa: SIM117
        with client().websocket_connect("/vosk/", headers={"Origin": "http://there"}):
            pass
    assert refusal.value.status_code == 403
