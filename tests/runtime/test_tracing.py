from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from runtime import tracing
from tests.integration.collector import collector, spans_in


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[tracing.Exporter]:
    """Traces are on, and nothing is sent by itself."""
    exporter = tracing.Exporter("asr_worker", "http://127.0.0.1:1", 1.0)
    monkeypatch.setattr(tracing, "_exporter", exporter)
    yield exporter


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("asr_trace_spans_total", {"outcome": outcome}) or 0.0


def span(name: str = "queue", seq: int = 3, error: str | None = None) -> tracing.Span:
    return tracing.Span(
        name=name,
        session_id="s",
        seq=seq,
        start_ns=1_000,
        end_ns=2_000,
        attributes={"lane": "live", "attempt": 2},
        error=error,
    )


def test_without_an_endpoint_there_are_no_traces() -> None:
    tracing.start("broker", "", 1.0)
    assert not tracing.on()
    tracing.record("queue", "s", 0, start_s=0.0, end_s=1.0)


def test_every_process_finds_the_same_ids() -> None:
    assert tracing.trace_id("s", 1) == tracing.trace_id("s", 1) != tracing.trace_id("s", 2)
    assert len(tracing.trace_id("s", 1)) == 32 and len(tracing.span_id("s", 1, "queue")) == 16
    again = tracing.span_id("s", 1, "queue", 5)
    assert again != tracing.span_id("s", 1, "queue", 6), "a second attempt is another span"


def test_a_collector_reads_what_is_sent() -> None:
    exporter_spans = [span(tracing.ROOT), span("queue", error="deadline")]
    sent = count("sent")
    with collector() as there:
        tracing.Exporter("asr_worker", there.endpoint + "/", 1.0).send(exporter_spans)
    root, queue = there.spans
    assert root.service == "asr-worker" and root.parent_id is None
    assert queue.parent_id == root.span_id and queue.trace_id == root.trace_id
    assert (queue.start_ns, queue.end_ns) == (1_000, 2_000)
    assert queue.attributes == {
        "session_id": "s",
        "segment_index": "3",
        "lane": "live",
        "attempt": "2",
    }
    assert queue.status == {"code": 2, "message": "deadline"} and root.status == {}
    assert count("sent") == sent + 2


def test_spans_are_sent_from_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "SEND_EVERY_S", 0.01)
    monkeypatch.setattr(tracing, "_exporter", None)
    with collector() as there:
        tracing.start("gateway", there.endpoint, 1.0)
        assert tracing.on()
        now_s = time.monotonic()
        tracing.record("store", "s", 1, start_s=now_s - 2, end_s=now_s, rows=3)
        deadline_s = time.monotonic() + 30
        while not there.spans and time.monotonic() < deadline_s:
            time.sleep(0.01)
    (found,) = there.spans
    assert found.end_ns - found.start_ns == pytest.approx(2e9, rel=1e-3)
    assert abs(found.end_ns - time.time_ns()) < 60e9


def test_a_collector_that_is_away_harms_nothing(kept: tracing.Exporter) -> None:
    failed = count("failed")
    kept.send([span(), span()])
    assert count("failed") == failed + 2


def test_at_the_limit_spans_are_dropped_and_counted(
    kept: tracing.Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = count("dropped")
    for _ in range(tracing.SPANS_QUEUED_MAX + 5):
        tracing.record("queue", "s", 0, start_s=0.0, end_s=0.0)
    assert count("dropped") == dropped + 5


def test_a_share_of_the_utterances_is_traced() -> None:
    sampled = [tracing.is_sampled("s", seq, 0.25) for seq in range(2_000)]
    assert 400 < sum(sampled) < 600
    assert all(tracing.is_sampled("s", seq, 1.0) for seq in range(100))
    body = tracing.payload("broker", [span()])
    assert len(list(spans_in(body))) == 1
