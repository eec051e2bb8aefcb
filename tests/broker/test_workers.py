"""Worker state: credits, leases, reservations, past attempts and throughput."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import broker
from broker import limits as limit
from broker.workers import WorkerPool
from tests.broker.invariants import check_pool
from tests.broker.test_queues import of
from wire.messages import Ready


def ready(name: str, credits: int = 2) -> Ready:
    return Ready(worker_id=name, credits=credits, model="demo", device="cpu")


def test_past_attempts_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "PAST_ATTEMPTS_MAX", 2)
    pool = WorkerPool()
    worker = pool.add(b"a", ready("a"), 0.0)
    entries = [of("s") for _ in range(3)]
    for entry in entries:
        pool.assign(worker, entry, 0.0, exclusive=False)
        pool.take_back(worker, entry)
    assert [(entry.job_id, 1) in worker.past for entry in entries] == [False, True, True]


def test_past_attempts_of_unregistered_workers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "PAST_WORKERS_MAX", 1)
    pool = WorkerPool()
    for name in ("a", "b"):
        worker = pool.add(name.encode(), ready(name), 0.0)
        entry = of("s")
        pool.assign(worker, entry, 0.0, exclusive=False)
        assert pool.remove(worker) == [entry]
        check_pool(pool)
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
        pool.assign(worker, entry, 0.0, exclusive=False)
        pool.complete(worker, entry, 0.0, infer_ms=1)
        check_pool(pool)
    assert len(pool._heap) <= 4 * 3 + 64


def test_removing_a_reserved_worker_frees_the_reservation() -> None:
    pool = WorkerPool()
    first = pool.add(b"a", ready("a"), 0.0)
    pool.assign(first, of("s"), 0.0, exclusive=False)
    assert pool.reserve_idle() is None
    assert pool.least_loaded() is None
    pool.remove(first)
    second = pool.add(b"b", ready("b"), 0.0)
    check_pool(pool)
    assert pool.reserve_idle() is second


def test_overdue_worker_is_not_kept_reserved() -> None:
    pool = WorkerPool()
    worker = pool.add(b"a", ready("a"), 0.0)
    entry = of("s")
    pool.assign(worker, entry, 0.0, exclusive=False)
    pool.reserve_idle()
    pool.give_up(worker, entry, 30.0)
    check_pool(pool)
    other = pool.add(b"b", ready("b"), 0.0)
    assert pool.reserve_idle() is other


@pytest.mark.parametrize(("infer_ms", "expected_audio_rate"), [(100, 30), (10_000, 3)])
def test_time_to_collect_a_batch_is_not_busy_time(
    infer_ms: int, expected_audio_rate: float
) -> None:
    """3 s of audio each second; the reported time is a part of that second, or more than it."""
    pool = WorkerPool()
    worker = pool.add(b"a", ready("a"), 0.0)
    for second in range(3_000):
        entry = of("s", audio_ms=3_000)
        pool.assign(worker, entry, float(second), exclusive=False)
        pool.complete(worker, entry, second + 1.0, infer_ms)
    assert pool.throughput_rtfx == pytest.approx(expected_audio_rate, rel=0.05)


def test_leases_and_protocol_errors() -> None:
    pool = WorkerPool()
    worker = pool.add(b"a", ready("a"), 0.0)
    assert pool.expired(5.0, 5.0) == []
    assert pool.expired(5.0, 5.5) == [worker]
    pool.extend(2.0, 5.5)
    assert pool.expired(5.0, 5.5) == []
    pool.renew(worker, 6.0)
    assert pool.expired(5.0, 11.0) == []
    errors = [pool.add_protocol_error(worker) for _ in range(limit.PROTOCOL_ERRORS_MAX)]
    assert errors == [False] * (limit.PROTOCOL_ERRORS_MAX - 1) + [True]


def test_only_the_pool_changes_a_worker() -> None:
    """Other modules assign to no attribute that a worker has, except of themselves
    and of jobs."""
    fields = vars(WorkerPool().add(b"w", ready("w"), 0.0))
    changes = [
        f"{path.name}:{node.lineno}"
        for path in Path(broker.__file__).parent.glob("*.py")
        if path.stem != "workers"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and node.attr in fields
        and ast.unparse(node.value) not in ("self", "entry")
    ]
    assert changes == []
