"""Figures of this gateway and of all."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from gateway.brokers.brokers import BrokerState
from gateway.server import Server
from gateway.telemetry import activity as a
from gateway.telemetry import system as s
from gateway.web.schemas import RecentAnswer, SystemAnswer
from gateway.web.stats import SystemFigures, queue_body, recent_body, totals_body
from tests.gateway.telemetry.test_activity import result
from wire.messages import Load, Usage

WORKER = s.WorkerState(
    worker_id="w1", model="demo", device="cpu", jobs=1, credits=8, draining=False
)


def load(gateways: int) -> Load:
    return Load(
        broker_epoch="e",
        queued_audio_ms=0,
        queued=2,
        in_flight=1,
        failed_total=0,
        workers=1,
        workers_busy=1,
        throughput_rtfx=20.0,
        est_wait_ms=5,
        models=("demo",),
        gateways=gateways,
    )


BROKERS = [
    BrokerState(endpoint="ipc:///front", live=True, sessions=1, workers=1, queued=2, est_wait_ms=5)
]


def body(texts: list[str] | None, known: Load | None) -> Any:
    """The answer of gateway ``g1`` with these figures of others."""

    async def figures() -> list[str] | None:
        return texts

    async def ping() -> bool:
        return True

    server = SimpleNamespace(
        gateway_id="g1",
        redis_metadata=SimpleNamespace(all_figures=figures),
        reader=SimpleNamespace(ping=ping),
        admission=SimpleNamespace(load=lambda now_s: known),
        activity=a.Activity(),
        gate=SimpleNamespace(connections=2),
        sessions={"s": None},
        outbox=[None],
        settings=SimpleNamespace(outbox_records_max=10),
        models=SimpleNamespace(all=()),
        brokers=SimpleNamespace(states=lambda: BROKERS),
    )
    found = asyncio.run(SystemFigures(cast(Server, server)).body())
    return SystemAnswer.model_validate(found).model_dump()


def text(one: s.Figures) -> str:
    return msgspec.json.encode(one).decode()


def other(gateway_id: str) -> str:
    return text(
        s.GatewayFigures(
            gateway_id=gateway_id,
            usage=Usage(),
            connections=3,
            sessions_active=4,
            sessions_started=5,
            audio_seconds=6.0,
            records_waiting=7,
            records_waiting_max=10,
            slots=(),
            workers={
                "w1": a.WorkerFigures(
                    results=2,
                    failures=1,
                    audio_ms=4000,
                    busy_ms=100.0,
                    batches=1.0,
                    batch_jobs_max=2,
                    seen_s=10.0,
                )
            },
        )
    )


def test_all_gateways_are_summed_whichever_answers() -> None:
    """The gateway's own published figures are older than its current ones."""
    broker = s.BrokerFigures(usage=Usage(host="h"), workers=(WORKER,))
    found = body([other("g1"), other("g2"), text(broker)], load(2))
    assert [gateway["gateway_id"] for gateway in found["gateways"]] == ["g1", "g2"]
    assert found["complete"] and found["gateways_registered"] == 2
    assert found["totals"]["connections"] == 2 + 3
    assert found["totals"]["sessions_active"] == 1 + 4
    assert found["queue"]["queued"] == 2
    (worker,) = found["workers"]
    assert (worker["results"], worker["failures"], worker["rtfx"]) == (2, 1, 40.0)
    assert worker["usage"] is None
    assert [one["kind"] for one in found["processes"]] == ["broker"]
    assert [broker["endpoint"] for broker in found["brokers"]] == ["ipc:///front"]


def test_a_worker_of_two_brokers_is_one_worker() -> None:
    usage = Usage(host="h")
    brokers = [
        s.BrokerFigures(usage=usage, workers=(WORKER,)),
        s.BrokerFigures(usage=usage, workers=(replace(WORKER, usage=usage, draining=True),)),
    ]
    found = body([text(broker) for broker in brokers], load(1))
    (worker,) = found["workers"]
    assert (worker["jobs"], worker["credits"]) == (2 * WORKER.jobs, 2 * WORKER.credits)
    assert worker["draining"] and worker["usage"]["host"] == "h"
    assert len(found["processes"]) == 2


def test_a_gateway_that_is_not_known_makes_the_answer_incomplete() -> None:
    assert not body([other("g2")], load(3))["complete"]


def test_what_is_unknown_is_null_and_no_zero() -> None:
    found = body(None, None)
    assert not found["complete"] and found["gateways_registered"] is None
    assert found["queue"] is None and found["throughput_rtfx"] is None
    assert found["workers"] is None and found["processes"] == []
    assert found["stores"]["redis"] == {"ready": False}
    assert found["recent"]["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert [gateway["gateway_id"] for gateway in found["gateways"]] == ["g1"]


def test_a_worker_without_results_has_no_speed() -> None:
    broker = s.BrokerFigures(usage=Usage(), workers=(WORKER,))
    (worker,) = body([text(broker)], load(1))["workers"]
    assert worker["results"] == 0 and worker["rtfx"] is None and worker["seen_s"] is None


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
