from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import cast

import pytest

from tools.lab.chaos import guests
from tools.lab.chaos.system import System
from tools.lab.harness.ports import free_port


class Answer(BaseHTTPRequestHandler):
    status = 503
    retry_after: str | None = "5"

    def do_GET(self) -> None:
        self.send_response(self.status)
        if self.retry_after:
            self.send_header("Retry-After", self.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep test output clean."""


def serving(port: int) -> System:
    return cast(System, SimpleNamespace(http_url=lambda: f"http://127.0.0.1:{port}"))


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    monkeypatch.setattr(guests, "REFUSED_WITHIN_S", 0.5)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield serving(server.server_address[1])
        server.shutdown()
        thread.join()


def test_a_refusal_passes(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "REFUSED_WITHIN_S", 20.0)
    assert guests.not_refused(system) == []


@pytest.mark.parametrize(("status", "retry_after"), [(200, "5"), (503, None), (500, "5")])
def test_any_other_answer_fails(
    system: System, monkeypatch: pytest.MonkeyPatch, status: int, retry_after: str | None
) -> None:
    monkeypatch.setattr(Answer, "status", status)
    monkeypatch.setattr(Answer, "retry_after", retry_after)
    assert "503 was promised" in guests.not_refused(system)[0]


def test_no_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "REFUSED_WITHIN_S", 0.2)
    system = serving(free_port())
    assert guests.not_refused(system)
