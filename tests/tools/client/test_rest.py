"""REST requests to a scripted server."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import pytest

from asr_client import rest as r
from asr_client.exceptions import RefusedError, SessionError, UnreachableError
from tests.tools.client.scripted import Peer


def test_a_query_is_sent_without_unset_values(scripted: Peer) -> None:
    scripted.answer = lambda name: {"name": name}
    server = r.Rest(scripted.url, "token")
    query = {"q": "天气 a&b", "limit": 5, "cursor": None}
    assert server.get_json("/api/v1/history", query) == {"name": "history"}
    assert scripted.requests == [("/api/v1/history", {"q": ["天气 a&b"], "limit": ["5"]})]
    assert scripted.headers[-1]["Authorization"] == "Bearer token"


def test_an_error_of_the_server_is_raised_with_its_status(scripted: Peer) -> None:
    with pytest.raises(RefusedError) as refused:
        r.Rest(scripted.url, None).get("/api/v1/session/x")
    assert refused.value.status == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("body", ["<html>", "[]"])
def test_an_answer_that_is_not_an_object_is_from_another_server(scripted: Peer, body: str) -> None:
    scripted.answer = lambda _: body
    with pytest.raises(SessionError, match="is not this server's REST interface"):
        r.Rest(scripted.url, None).get_json("/api/v1/history")


def test_no_server_is_one_line(unused_tcp_port: int) -> None:
    with pytest.raises(UnreachableError, match=r"cannot connect to http://.*: Connection refused"):
        r.Rest(f"127.0.0.1:{unused_tcp_port}", None).get("/")


def test_an_id_stays_one_part_of_the_path() -> None:
    assert r.session_path("a/../b?c") == "/api/v1/session/a%2F..%2Fb%3Fc"
    assert Path(r.session_path("x")).name == "x"
