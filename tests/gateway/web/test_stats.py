from __future__ import annotations

from gateway.telemetry import activity as a
from gateway.web.schemas import RecentAnswer
from gateway.web.stats import queue_body, recent_body, totals_body
from tests.gateway.telemetry.test_activity import result


def test_without_a_broker_the_queue_is_empty_and_reports_it() -> None:
    assert queue_body(None)["broker_ready"] is False
    assert queue_body(None)["workers"] == 0


def test_recent_figures_fit_their_schema_and_the_window() -> None:
    activity = a.Activity()
    activity.note_refusal("overloaded", 1.0)
    activity.note_latency(0.1, 1.1)
    activity.note_result(result(end_ms=2_000, batch_jobs=2), 1.1)
    slots = activity.slots(1.1)
    body = RecentAnswer.model_validate(recent_body(slots, a.workers_of(slots))).model_dump()
    assert body["results"] == 1 and body["audio_seconds"] == 1.5
    assert body["refused"] == {"overloaded": 1}
    assert 100 <= body["latency_ms"]["p95"] <= 116
    assert {len(series) for series in body["series"].values()} == {a.SLOTS_MAX}
    assert body["series"]["latency_p50_ms"][-2:] == [None, body["latency_ms"]["p50"]]
    (worker,) = body["workers"]
    assert (worker["rtfx"], worker["batch_jobs_mean"], worker["seen_s"]) == (30.0, 2.0, 0.0)


def test_totals_are_null_without_a_database() -> None:
    assert set(totals_body(None).values()) == {None}
    totals = {"sessions": 3, "audio_s": 7.5, "database_bytes": 3 << 19}
    assert totals_body(totals) == {
        "total_tasks": 3,
        "total_duration": 7.5,
        "storage_used": "1.50 MB",
    }
