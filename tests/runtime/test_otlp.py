"""The exporter against a collector that answers, refuses, hangs or does not exist."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from prometheus_client import REGISTRY

from runtime import otlp
from tests.integration.collector import collector

NOWHERE = "http://127.0.0.1:1"
ANSWER_S_MAX = 30.0
"""Longest wait of a test for what takes milliseconds on an idle machine."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "EXPORT_INTERVAL_MS", 10.0)
    monkeypatch.setattr(otlp, "EXPORT_TIMEOUT_S", 2 * ANSWER_S_MAX)


@contextmanager
def exporter(endpoint: str) -> Iterator[otlp.Exporter]:
    made = otlp.Exporter("broker", endpoint, 1.0)
    yield made
    made.shutdown(ANSWER_S_MAX)


def record(to: otlp.Exporter, number: int = 1) -> None:
    to.record(
        "queue",
        trace_id=number,
        span_id=number,
        parent_id=None,
        start_ns=1_000,
        end_ns=2_000,
        error=None,
        attributes={"lane": "live"},
    )


def counts() -> dict[str, float]:
    return {
        outcome: REGISTRY.get_sample_value("asr_trace_spans_total", {"outcome": outcome}) or 0.0
        for outcome in ("sent", "failed", "dropped")
    }


def wait_for(outcome: str, value: float) -> None:
    deadline_s = time.monotonic() + ANSWER_S_MAX
    while counts()[outcome] < value:
        assert time.monotonic() < deadline_s, counts()
        time.sleep(0.01)


def test_spans_are_sent_without_a_flush() -> None:
    before = counts()["sent"]
    with collector() as there, exporter(there.endpoint) as to:
        record(to)
        wait_for("sent", before + 1)
        (span,) = there.spans
    assert (span.trace_id, span.span_id, span.start_ns, span.end_ns) == (1, 1, 1_000, 2_000)


def test_failures_are_counted_and_the_first_in_a_row_is_logged() -> None:
    failed, sent = counts()["failed"], counts()["sent"]
    with (
        structlog.testing.capture_logs() as logs,
        collector() as there,
        exporter(there.endpoint) as to,
    ):
        there.status = 400
        for number in (1, 2):
            record(to)
            wait_for("failed", failed + number)
        there.status = 200
        record(to)
        wait_for("sent", sent + 1)
    assert [line["event"] for line in logs] == ["trace_export_failed"]


def test_an_unreachable_collector_delays_no_shutdown() -> None:
    with exporter(NOWHERE) as to:
        record(to)
        began_s = time.monotonic()
        to.shutdown(0.05)
        assert time.monotonic() - began_s < ANSWER_S_MAX


def test_a_collector_that_never_answers_delays_no_record_and_no_shutdown() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        exporter(f"http://127.0.0.1:{silent.getsockname()[1]}") as to,
    ):
        began_s = time.monotonic()
        for number in range(1, 100):
            record(to, number)
        to.shutdown(0.05)
        assert time.monotonic() - began_s < ANSWER_S_MAX


def test_spans_beyond_the_queue_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "SPANS_QUEUED_MAX", 10)
    monkeypatch.setattr(otlp, "SPANS_PER_REQUEST_MAX", 10)
    monkeypatch.setattr(otlp, "EXPORT_INTERVAL_MS", 60_000.0)
    before = counts()
    with collector() as there, exporter(there.endpoint) as to:
        there.status = 400
        for number in range(1, 31):
            record(to, number)
    after = counts()
    lost = {name: after[name] - before[name] for name in after}
    assert lost["failed"] + lost["dropped"] == 30 and lost["dropped"] >= 10
