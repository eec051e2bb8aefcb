"""REST requests to a scripted server."""

from __future__ import annotations

import asyncio
import ssl
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asr_client import connect
from asr_client import rest as r
from asr_client.exceptions import RefusedError, SessionError, UnreachableError
from tests import certificates
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


def test_a_redirect_to_another_host_gets_no_token() -> None:
    tokens: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["Authorization"])
            host = {"/here": "127.0.0.1", "/away": "localhost"}.get(self.path)
            self.send_response(HTTPStatus.FOUND if host else HTTPStatus.OK)
            if host:
                self.send_header("Location", f"http://{host}:{port}/")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_port
        threading.Thread(target=server.serve_forever).start()
        rest = r.Rest(f"127.0.0.1:{port}", "token")
        rest.get("/here")
        rest.get("/away")
        server.shutdown()
    assert tokens == ["Bearer token"] * 3 + [None]


def test_no_server_is_one_line(unused_tcp_port: int) -> None:
    with pytest.raises(UnreachableError, match=r"cannot connect to http://.*: nothing listens"):
        r.Rest(f"127.0.0.1:{unused_tcp_port}", None).get("/")


async def test_tls_on_one_side_only_is_told(tmp_path: Path) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    found = certificates.make(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(found.certificate, found.key)
    async with await asyncio.start_server(close, "127.0.0.1", 0, ssl=context) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(UnreachableError, match="needs TLS"):
            await asyncio.to_thread(r.Rest(address, None).get, "/")
        # Not UnreachableError, whose remedy is to start the server.
        with pytest.raises(SessionError, match=r"not trusted.*SSL_CERT_FILE") as refused:
            await asyncio.to_thread(r.Rest(f"https://{address}", None).get, "/")
        assert not isinstance(refused.value, UnreachableError)
        with pytest.raises(SessionError, match=r"not trusted.*SSL_CERT_FILE"):
            async with connect(f"wss://{address}/ws/asr"):
                pytest.fail("connected")


def test_an_id_stays_one_part_of_the_path() -> None:
    assert r.session_path("a/../b?c") == "/api/v1/session/a%2F..%2Fb%3Fc"
    assert Path(r.session_path("x")).name == "x"
