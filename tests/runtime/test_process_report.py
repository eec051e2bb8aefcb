from __future__ import annotations

import json
import socket
import threading
import time

import pytest
import redis
import structlog

from runtime import process_report
from runtime.process_report import PROCESS_KEY, PROCESSES_KEY, ProcessReport
from tools.lab.harness.process import wait_until

CLOSED_S_MAX = 30.0
"""On a busy machine; on an idle one it is two call timeouts. The silent server answers never."""


def test_a_process_is_written_with_an_end(redis_database: str) -> None:
    report = ProcessReport(redis_database, "broker", "broker-1")
    report.details = {"workers": []}
    report.start()
    key = PROCESS_KEY.format("broker-1")
    with redis.Redis.from_url(redis_database, decode_responses=True) as client:
        wait_until(lambda: client.exists(key) == 1, "the report", 20)
        written = json.loads(str(client.get(key)))
        assert 0 < client.ttl(key) <= process_report.TTL_S
        assert client.smembers(PROCESSES_KEY) == {"broker-1"}
    report.close()
    assert written["kind"] == "broker" and written["workers"] == []
    assert written["usage"]["memory_bytes"] > 0


def test_close_returns_while_redis_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        report = ProcessReport(f"redis://127.0.0.1:{silent.getsockname()[1]}", "broker", "b")
        report.start()
        began_s = time.monotonic()
        report.close()
        assert time.monotonic() - began_s < CLOSED_S_MAX


def test_redis_without_an_answer_is_logged_once_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_report, "WRITE_INTERVAL_S", 0.01)
    called = threading.Semaphore(0)

    class Counted(ProcessReport):
        def call(self) -> bool:
            called.release()
            return super().call()

    with structlog.testing.capture_logs() as logs:
        for expected in (True, False):
            report = Counted("unix:///nowhere/redis.sock", "persistence", "p", logs=expected)
            report.start()
            for _ in range(3):
                assert called.acquire(timeout=20)
            report.close()
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("redis_unavailable", "warning")
    assert "/nowhere/redis.sock" in line["reason"]
