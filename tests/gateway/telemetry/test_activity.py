from __future__ import annotations

from typing import Any

import pytest

from gateway.telemetry import activity as a
from tests.persistence import sent
from wire.messages import Failure, Result


def result(**changes: Any) -> Result:
    """Two seconds of audio, recognised in 100 ms by the worker w1."""
    made = {"start_ms": 500, "end_ms": 2_500, "text": "one", "worker_id": "w1", "infer_ms": 100}
    return sent.result(**{**made, **changes})


FAILED: dict[str, Any] = {"text": None, "error": Failure(code="deadline", message="")}


def test_there_is_a_slot_for_all_of_the_window() -> None:
    slots = a.Activity().slots(5_000.0)
    assert len(slots) == a.SLOTS_MAX
    assert {slot.results for slot in slots} == {0}
    assert a.percentile_ms(slots, 0.5) is None


def test_a_latency_is_in_the_slot_of_its_result() -> None:
    activity = a.Activity()
    activity.note_latency(0.4, 10.4)
    found = a.percentile_ms(activity.slots(10.4), 0.5)
    assert found is not None and 400 <= found <= 400 * 1.15


def test_percentiles_are_right_to_a_bucket() -> None:
    activity = a.Activity()
    for n in range(100):
        activity.note_latency((n + 1) / 100, 1.0)
    slots = activity.slots(1.0)
    for share in (0.5, 0.95, 0.99):
        found = a.percentile_ms(slots, share)
        assert found is not None and share * 1000 <= found <= share * 1000 * 1.151


def test_a_latency_beyond_all_buckets_is_the_last_ones() -> None:
    activity = a.Activity()
    activity.note_latency(500.0, 500.0)
    found = a.percentile_ms(activity.slots(500.0), 0.99)
    assert found is not None and found > 60_000


def test_older_slots_are_dropped() -> None:
    activity = a.Activity()
    activity.note_result(result(), 5.0)
    activity.note_refusal("overloaded", 5.0)
    window_s = a.SLOTS_MAX * a.SLOT_S
    assert sum(slot.results for slot in activity.slots(window_s - 1)) == 1
    slots = activity.slots(window_s + 5)
    assert sum(slot.results for slot in slots) == 0
    assert sum(slot.refused.total() for slot in slots) == 0


def test_a_slot_keeps_the_highest_values() -> None:
    activity = a.Activity()
    for sessions, queued in ((1, 0), (3, 7), (2, 1)):
        activity.note_level(sessions=sessions, queued=queued, now_s=1.0)
    assert activity.slots(1.0)[-1].sessions_max == 3
    assert activity.slots(1.0)[-1].queued_max == 7


def test_a_workers_speed_and_batches() -> None:
    """Two batches of a worker: of three jobs in 300 ms, and one job in 100 ms."""
    activity = a.Activity()
    for _ in range(3):
        activity.note_result(result(infer_ms=300, batch_jobs=3), 0.0)
    activity.note_result(result(worker_id="w2"), 5.0)
    activity.note_result(result(**FAILED), 25.0)
    workers = a.workers_of(activity.slots(25.0))
    figures = workers["w1"]
    assert (figures.results, figures.failures, figures.batch_jobs_max) == (4, 1, 3)
    assert figures.batch_jobs_mean == pytest.approx(2)
    assert figures.rtfx == pytest.approx(8_000 / 400)
    assert figures.seen_s == 0 and workers["w2"].seen_s == 20


def test_partials_are_work_but_no_results() -> None:
    activity = a.Activity()
    activity.note_result(result(partial=True), 1.0)
    (slot,) = activity.slots(1.0)[-1:]
    assert slot.results == 0
    assert slot.workers["w1"].results == 1


def test_a_failure_without_a_worker_is_no_workers() -> None:
    activity = a.Activity()
    activity.note_result(result(worker_id="", **FAILED), 0.0)
    (slot,) = activity.slots(0.0)[-1:]
    assert slot.failures == 1 and not slot.workers


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a, "WORKERS_MAX", 2)
    activity = a.Activity()
    for n in range(5):
        activity.note_result(result(worker_id=f"w{n}"), 0.1)
    (slot,) = activity.slots(0.1)[-1:]
    assert slot.results == 5
    assert slot.workers.keys() == {"w0", "w1"}


def test_a_worker_that_invents_codes_does_not_fill_the_memory() -> None:
    activity = a.Activity()
    for n in range(a.ERROR_CODES_MAX + 3):
        failed = {**FAILED, "error": Failure(code=f"code_{n}", message="")}
        activity.note_result(result(**failed), 1.0)
    errors = activity.slots(1.0)[-1].errors
    assert len(errors) == a.ERROR_CODES_MAX + 1
    assert errors["other"] == 3
