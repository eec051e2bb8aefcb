from __future__ import annotations

from typing import get_args

from msgspec import structs
from prometheus_client import REGISTRY

from broker import events as e
from broker import metrics
from tests.broker.driving import WORKER, Driver, job
from tests.test_tidy import ROOT
from wire import messages as m


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def series_of_answers() -> int:
    return sum(len(metric.samples) for metric in metrics.ANSWERS.collect())


def test_the_end_of_each_final_job_is_measured() -> None:
    driver = Driver()
    driver.hello()
    driver.front(job(0))
    driver.now_s += 0.25
    driver.ready()
    driver.answer(1)
    driver.front(job(1, lane="bulk"))
    driver.answer(2, text=None, error=m.Failure(code="recognition_failed", message=""))
    driver.front(job(2, partial=True))
    driver.answer(3)
    assert driver.answered == [
        e.Answered("live", "text", 250, "session", 0, 100.0),
        e.Answered("bulk", "recognition_failed", 0, "session", 1, 100.25),
    ]


def test_a_job_without_a_workers_answer_is_counted_without_a_waiting_time() -> None:
    driver = Driver()
    driver.hello()
    driver.front(job(0, deadline_ms=1_000))
    driver.tick(2.0, alive=(b"gateway-1",))
    (answered,) = driver.answered
    assert answered.outcome == "deadline"
    waits = value("asr_broker_queue_seconds_count", lane="live")
    metrics.count_answer(answered)
    assert value("asr_broker_queue_seconds_count", lane="live") == waits
    metrics.count_answer(e.Answered("live", "text", 250, "", 0, 0.0))
    assert value("asr_broker_queue_seconds_count", lane="live") == waits + 1


def test_each_watched_reason_is_counted_somewhere() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "broker").glob("*.py"))
    code = code.replace((ROOT / "broker" / "metrics.py").read_text(encoding="utf-8"), "")
    sent = {f"unsent_{name.lower()}" for name in vars(m) if isinstance(vars(m)[name], type)}
    faults = {f for f in ("malformed", "unexpected") if f'"{f}"' in code}
    faulty = {f"{side}_{fault}" for side in get_args(e.Side) for fault in faults}
    assert {name for name in metrics.WATCHED if f'"{name}"' not in code} <= sent | faulty


def test_error_codes_of_workers_add_no_series() -> None:
    series = series_of_answers()
    before = value("asr_broker_answers_total", lane="live", outcome="other")
    for code in ("no such code", "nor this", WORKER.decode()):
        metrics.count_answer(e.Answered("live", code, 0, "", 0, 0.0))
    assert value("asr_broker_answers_total", lane="live", outcome="other") == before + 3
    assert series_of_answers() == series


def test_a_model_has_series_as_long_as_it_is_served() -> None:
    served = m.ServedModel(
        name="zh", model="m", workers=2, throughput_rtfx=80.0, arriving_audio_rate=12.5
    )
    load = Driver().broker.load()
    metrics.set_gauges(structs.replace(load, served=(served,)))
    assert value("asr_broker_model_throughput_ratio", model="zh") == 80.0
    assert value("asr_broker_model_arriving_ratio", model="zh") == 12.5
    metrics.set_gauges(structs.replace(load, served=()))
    for name in ("throughput_ratio", "arriving_ratio", "workers"):
        assert REGISTRY.get_sample_value(f"asr_broker_model_{name}", {"model": "zh"}) is None
