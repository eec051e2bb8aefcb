"""Answers of a server, whatever they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tools.lab.harness.http import Answer, ask
from tools.lab.harness.ports import free_port


class Echo(BaseHTTPRequestHandler):
    """Answers 418 with the request's path, header X and body."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        text = f'["{self.path}", "{self.headers["X"]}", "{body}"]'.encode()
        self.send_response(418)
        self.send_header("Retry-After", "5")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"no JSON")

    def log_message(self, format: str, *args: object) -> None:
        """Keep test output clean."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_error_is_an_answer(url: str) -> None:
    answer = ask(f"{url}/a?b=c", "POST", {"X": "x"}, b"body")
    assert answer.status == 418 and answer.headers["retry-after"] == "5"
    assert answer.body == ["/a?b=c", "x", "body"]


def test_a_body_that_is_not_json_is_text(url: str) -> None:
    assert ask(url).body == "no JSON"


def test_without_a_server_the_status_is_zero() -> None:
    assert ask(f"http://127.0.0.1:{free_port()}/") == Answer(0, {}, None)
