"""What workers hold and may take, beyond what the routing tests show."""

from __future__ import annotations

import pytest

from broker import limits as limit
from broker.workers import PastAttempts, Throughput, WorkerPool
from tests.broker.test_queues import of
from wire.messages import Ready


def ready(name: str, credits: int = 2) -> Ready:
    return Ready(worker_id=name, credits=credits, model="demo", device="cpu")


def test_past_attempts_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "PAST_ATTEMPTS_MAX", 2)
    past = PastAttempts()
    for job_id in range(3):
        past.add((job_id, 1))
    assert [(job_id, 1) in past for job_id in range(3)] == [False, True, True]


def test_past_of_gone_workers_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "PAST_WORKERS_MAX", 1)
    pool = WorkerPool()
    for name in ("a", "b"):
        worker = pool.add(name.encode(), ready(name), 0.0)
        entry = of("s")
        pool.assign(worker, entry, 0.0, alone=False)
        assert pool.remove(worker) == [entry]
        pool.validate()
    assert (entry.job_id, 1) in pool.add(b"b", ready("b"), 0.0).past
    assert (entry.job_id, 1) not in pool.add(b"a", ready("a"), 0.0).past


def test_credits_have_a_limit() -> None:
    pool = WorkerPool()
    assert pool.add(b"a", ready("a", 10**9), 0.0).credits == limit.CREDITS_MAX


def test_heap_does_not_grow_with_traffic() -> None:
    pool = WorkerPool()
    for name in ("a", "b", "c"):
        pool.add(name.encode(), ready(name), 0.0)
    for _ in range(1_000):
        worker = pool.least_loaded()
        assert worker is not None
        entry = of("s")
        pool.assign(worker, entry, 0.0, alone=False)
        pool.complete(worker, entry, 0.0, infer_ms=1)
        pool.validate()
    assert pool.heap_length <= 4 * 3 + 64


def test_reserved_worker_that_goes_frees_the_reservation() -> None:
    pool = WorkerPool()
    first = pool.add(b"a", ready("a"), 0.0)
    pool.assign(first, of("s"), 0.0, alone=False)
    assert pool.reserve_idle() is None
    assert pool.least_loaded() is None
    pool.remove(first)
    second = pool.add(b"b", ready("b"), 0.0)
    pool.validate()
    assert pool.reserve_idle() is second


def test_overdue_worker_is_not_kept_reserved() -> None:
    pool = WorkerPool()
    worker = pool.add(b"a", ready("a"), 0.0)
    entry = of("s")
    pool.assign(worker, entry, 0.0, alone=False)
    pool.reserve_idle()
    pool.give_up(worker, entry, 30.0)
    pool.validate()
    other = pool.add(b"b", ready("b"), 0.0)
    assert pool.reserve_idle() is other


def test_throughput_begins_with_what_the_worker_measured() -> None:
    assert Throughput(told_rtfx=250.0).factor == pytest.approx(250)
    assert Throughput(told_rtfx=0.0).factor == pytest.approx(limit.THROUGHPUT_INITIAL_RTFX)


def test_throughput_counts_a_batch_as_one() -> None:
    """Ten utterances of 3 s come together after 0.5 s of work."""
    throughput = Throughput(told_rtfx=0.0)
    for _ in range(200):
        throughput.note(3_000, 0.5)
        for _ in range(9):
            throughput.note(3_000, 0.0)
    assert throughput.factor == pytest.approx(60, rel=0.1)


@pytest.mark.parametrize(("infer_ms", "expected_audio_rate"), [(100, 30), (10_000, 3)])
def test_time_in_which_jobs_gather_is_not_busy_time(
    infer_ms: int, expected_audio_rate: float
) -> None:
    """3 s of audio each second; the worker says that it took a part of it, or more than all."""
    pool = WorkerPool()
    worker = pool.add(b"a", ready("a"), 0.0)
    for second in range(3_000):
        entry = of("s", audio_ms=3_000)
        pool.assign(worker, entry, float(second), alone=False)
        pool.complete(worker, entry, second + 1.0, infer_ms)
    assert pool.throughput_rtfx == pytest.approx(expected_audio_rate, rel=0.05)
