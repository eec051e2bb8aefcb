from __future__ import annotations

import json

import msgspec

from gateway.telemetry import system as s
from gateway.telemetry.activity import (
    SLOT_S,
    SLOTS_MAX,
    Activity,
    percentile_ms,
    summed_workers,
    workers_of,
)
from tests.gateway.telemetry.test_activity import result
from wire.messages import Failure, Usage


def figures(activity: Activity, now_s: float, gateway_id: str = "g1") -> s.GatewayFigures:
    slots = activity.slots(now_s)
    return s.GatewayFigures(
        gateway_id=gateway_id,
        usage=Usage(),
        connections=1,
        sessions_active=1,
        sessions_started=1,
        audio_seconds=1.0,
        records_waiting=0,
        records_waiting_max=10,
        slots=s.slot_figures(slots),
        workers=workers_of(slots),
    )


def published(one: s.Figures) -> s.Figures:
    (read,) = s.decoded([msgspec.json.encode(one).decode()])
    return read


def busy(now_s: float, *, late_s: float) -> Activity:
    activity = Activity()
    activity.note_latency(late_s, now_s - 5 * SLOT_S)
    activity.note_refusal("overloaded", now_s)
    activity.note_level(sessions=3, queued=7, now_s=now_s)
    return activity


def test_figures_are_read_as_they_were_written() -> None:
    one = figures(busy(1_000.0, late_s=0.1), 1_000.0)
    assert published(one) == one
    broker = s.BrokerFigures(usage=Usage(host="h", memory_bytes=5))
    assert published(broker) == broker


def test_empty_slots_are_not_published() -> None:
    assert [slot.age for slot in figures(busy(1_000.0, late_s=0.1), 1_000.0).slots] == [5, 0]


def test_what_another_release_writes_is_left_out() -> None:
    later = {"kind": "broker", "usage": {"host": "h", "of_later": 1}, "more": []}
    texts = ["{", "[]", "{}", json.dumps({"kind": "planner"}), json.dumps(later), "\ud800"]
    assert s.decoded(texts) == [s.BrokerFigures(usage=Usage(host="h"))]


def test_slots_are_summed_by_their_age_whatever_the_clocks() -> None:
    """Latencies of both gateways make one distribution; monotonic clocks differ by host."""
    first = figures(busy(1_000.0, late_s=0.1), 1_000.0)
    second = figures(busy(77_777.0, late_s=2.0), 77_777.0, "g2")
    slots = s.summed_slots([first, second])
    assert len(slots) == SLOTS_MAX
    assert slots[-1].sessions_max == 6, "the sum"
    assert slots[-1].queued_max == 7, "the queue of the system"
    assert slots[-6].latencies.total() == 2
    p50, p99 = percentile_ms(slots, 0.5), percentile_ms(slots, 0.99)
    assert p50 is not None and p99 is not None and p50 < 200 < 1_900 < p99
    assert s.errors_of(slots) == {"overloaded": 2}


def test_results_of_a_worker_are_summed_over_gateways() -> None:
    parts = []
    for now_s in (1_000.0, 77_777.0):
        activity = Activity()
        activity.note_result(result(worker_id="w1"), now_s)
        failed = Failure(code="deadline", message="")
        activity.note_result(result(worker_id="w1", text=None, error=failed), now_s)
        parts.append(figures(activity, now_s + 3 * SLOT_S))
    # Gateways of other releases read these fields.
    assert set(msgspec.to_builtins(parts[0])["workers"]["w1"]) == {
        *("results", "failures", "audio_ms", "busy_ms", "batches", "batch_jobs_max", "seen_s")
    }
    total, *others = summed_workers(one.workers for one in parts).values()
    assert not others and total.seen_s == 3 * SLOT_S
    assert (total.results, total.failures) == (4, 2)
    assert s.errors_of(s.summed_slots(parts)) == {"deadline": 2}
