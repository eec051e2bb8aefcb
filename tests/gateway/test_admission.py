from dataclasses import replace

from gateway.admission import LOAD_SILENCE_S_MAX, REOPEN_BELOW, Admission, Refusal
from wire.messages import Load

LOAD = Load(
    broker_epoch="e",
    queued_audio_ms=0,
    queued=0,
    in_flight=0,
    failed_total=0,
    workers=2,
    workers_busy=0,
    throughput_x=100.0,
    est_wait_ms=0,
    models=("demo",),
)


def admission(**changes: int) -> Admission:
    return Admission(**{"max_connections": 5, "min_workers": 1, "est_wait_ms_max": 1000, **changes})


def decide(subject: Admission, now_s: float = 0.0, connections: int = 1) -> str | None:
    refusal = subject.decide(now_s, connections=connections, backlog_full=False, draining=False)
    return None if refusal is None else refusal.code


def test_without_a_broker_nobody_enters() -> None:
    subject = admission()
    assert decide(subject) == "no_broker"
    subject.note_load(LOAD, 0.0)
    assert decide(subject) is None
    assert decide(subject, LOAD_SILENCE_S_MAX) is None
    assert decide(subject, LOAD_SILENCE_S_MAX + 0.01) == "no_broker"


def test_workers_are_needed() -> None:
    subject = admission(min_workers=2)
    subject.note_load(replace(LOAD, workers=1), 0.0)
    assert decide(subject) == "no_worker"
    subject.note_load(replace(LOAD, workers=2), 0.0)
    assert decide(subject) is None


def test_min_workers_zero_still_needs_one() -> None:
    subject = admission(min_workers=0)
    subject.note_load(replace(LOAD, workers=0), 0.0)
    assert decide(subject) == "no_worker"


def test_the_connection_after_the_last_is_refused() -> None:
    subject = admission(max_connections=5)
    subject.note_load(LOAD, 0.0)
    assert decide(subject, connections=5) is None
    assert decide(subject, connections=6) == "max_connections"
    unlimited = admission(max_connections=0)
    unlimited.note_load(LOAD, 0.0)
    assert decide(unlimited, connections=10**6) is None


def test_a_long_wait_refuses_until_it_is_clearly_shorter() -> None:
    subject = admission(est_wait_ms_max=1000)
    subject.note_load(replace(LOAD, est_wait_ms=1001), 0.0)
    assert decide(subject) == "overloaded"
    subject.note_load(replace(LOAD, est_wait_ms=int(1000 * REOPEN_BELOW)), 0.0)
    assert decide(subject) == "overloaded"
    subject.note_load(replace(LOAD, est_wait_ms=int(1000 * REOPEN_BELOW) - 1), 0.0)
    assert decide(subject) is None


def test_backlog_and_draining() -> None:
    subject = admission()
    subject.note_load(LOAD, 0.0)
    backlog = subject.decide(0.0, connections=1, backlog_full=True, draining=False)
    draining = subject.decide(0.0, connections=1, backlog_full=False, draining=True)
    assert isinstance(backlog, Refusal) and backlog.code == "storage_backlog"
    assert isinstance(draining, Refusal) and draining.code == "draining"
    assert backlog.retry_after_s > 0 and draining.retry_after_s > 0
