from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from runtime import tracing
from tests.integration.collector import Collector, collector


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(tracing, "FLUSH_S_MAX", 30.0)  # This machine may be busy.
    with collector() as server:
        yield server
        tracing.stop()


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("asr_trace_spans_total", {"outcome": outcome}) or 0.0


def test_without_an_endpoint_tracing_is_disabled() -> None:
    tracing.start("broker", "", 1.0)
    assert not tracing.on()
    tracing.record("queue", "s", 0, start_s=0.0, end_s=1.0)
    tracing.stop()


def test_a_ratio_of_zero_disables_tracing() -> None:
    tracing.start("broker", "http://127.0.0.1:1", 0.0)
    assert not tracing.on()


def test_ids_depend_on_session_segment_name_and_start() -> None:
    assert tracing.trace_id("s", 1) == tracing.trace_id("s", 1) != tracing.trace_id("s", 2)
    assert tracing.span_id("s", 1, "queue", 5) != tracing.span_id("s", 1, "queue", 6)
    assert tracing.trace_id("s", 1).bit_length() > 100
    assert 50 < tracing.span_id("s", 1, "queue").bit_length() <= 64


def test_stop_sends_the_recording(there: Collector) -> None:
    sent = count("sent")
    tracing.start("asr_worker", there.endpoint + "/", 1.0)
    assert tracing.on()
    now_s = time.monotonic()
    tracing.record("utterance", "s", 3, start_s=now_s - 2, end_s=now_s)
    tracing.record(
        "queue", "s", 3, start_s=now_s - 2, end_s=now_s - 1, error="deadline", lane="live", tries=2
    )
    tracing.stop()
    assert not tracing.on()
    root, queue = there.spans
    assert root.service == "asr-worker" and root.parent_id is None and root.error is None
    assert queue.parent_id == root.span_id and queue.trace_id == root.trace_id
    assert root.trace_id == tracing.trace_id("s", 3)
    assert queue.attributes == {"session_id": "s", "segment_index": 3, "lane": "live", "tries": 2}
    assert queue.error == "deadline"
    assert root.end_ns - root.start_ns == pytest.approx(2e9, rel=1e-3)
    assert abs(root.end_ns - time.time_ns()) < 60e9
    assert count("sent") == sent + 2


def test_two_processes_add_to_the_same_trace(there: Collector) -> None:
    for process, name in (("gateway", "utterance"), ("broker", "queue")):
        tracing.start(process, there.endpoint, 1.0)
        tracing.record(name, "s", 0, start_s=0.0, end_s=1.0)
        tracing.stop()
    root, queue = there.spans
    assert (root.service, queue.service) == ("asr-gateway", "asr-broker")
    assert queue.trace_id == root.trace_id and queue.parent_id == root.span_id


def test_processes_sample_the_same_utterances(there: Collector) -> None:
    for process, name in (("gateway", "utterance"), ("broker", "queue")):
        tracing.start(process, there.endpoint, 0.25)
        for seq in range(2_000):
            tracing.record(name, "s", seq, start_s=0.0, end_s=1.0)
        tracing.stop()
    traces = [
        {span.trace_id for span in there.spans if span.name == name}
        for name in ("utterance", "queue")
    ]
    assert traces[0] == traces[1] and 400 < len(traces[0]) < 600
