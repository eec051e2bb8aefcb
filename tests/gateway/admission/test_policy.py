import math
from typing import Any

import pytest
from msgspec import structs

from gateway.admission.policy import (
    BROKER_DELAY_S_MAX,
    DELAY_MEMORY_S,
    KNOWN_SESSION_S,
    LOAD_SILENCE_S_MAX,
    NEW_SESSION_S,
    REOPEN_BELOW,
    REOPEN_UTILISATION_BELOW,
    SEEN_SESSION_S,
    SESSION_BUSY,
    Admission,
    Refusal,
    ResumedAt,
    served_by,
)
from gateway.settings import GatewaySettings
from wire.messages import Lane, Load, ServedModel

LOAD = Load(
    broker_epoch="e",
    queued_audio_ms=0,
    queued=0,
    in_flight=0,
    failed_total=0,
    workers=2,
    workers_busy=0,
    throughput_rtfx=100.0,
    est_wait_ms=0,
    models=("demo",),
)
LIMITS = GatewaySettings(
    max_connections=5,
    min_workers=1,
    est_wait_ms_max=1000,
    admit_utilisation_max=0,
    admit_p95_ms_max=0,
    admit_session_audio_rate=1.0,
    admit_sessions_per_s_max=0,
    admit_delay_ms_max=0,
    admit_busy_max=0,
)


def admission(load: Load | None = LOAD, **limits: Any) -> Admission:
    assert limits.keys() <= GatewaySettings.model_fields.keys()
    subject = Admission(LIMITS.model_copy(update=limits))
    if load is not None:
        subject.note_load(load, 0.0)
    return subject


def decide(
    subject: Admission,
    now_s: float = 0.0,
    own: int = 2,
    resumed_at: ResumedAt = "nowhere",
    model: str | None = "",
    lane: Lane = "live",
    others: int = 0,
) -> str | None:
    """``own``: another session is here. ``others`` are at other gateways."""
    refusal = subject.decide(
        now_s,
        own=own,
        total=own + others,
        backlog_full=False,
        draining=False,
        resumed_at=resumed_at,
        model=model,
        lane=lane,
    )
    if refusal is None:
        subject.note_admitted(now_s, model)
    return None if refusal is None else refusal.code


def expected_of(subject: Admission, now_s: float, own: int) -> dict[str, float]:
    rates = subject.next_expected_audio_rates(now_s, own=own)
    return {each.model: each.audio_rate for each in rates}


def admitted_of(subject: Admission, offered: int, now_s: float = 0.0, *, others: int = 0) -> int:
    """Return how many of ``offered`` simultaneous clients this gateway admits."""
    admitted = 0
    for _ in range(offered):
        admitted += decide(subject, now_s, own=admitted + 1, others=others) is None
    return admitted


def test_without_a_broker_sessions_are_refused() -> None:
    subject = admission(None)
    assert decide(subject) == "no_broker"
    subject.note_load(LOAD, 0.0)
    assert decide(subject) is None
    assert decide(subject, LOAD_SILENCE_S_MAX) is None
    assert decide(subject, LOAD_SILENCE_S_MAX + 0.01) == "no_broker"


def test_fewer_workers_than_min_workers_are_no_worker() -> None:
    subject = admission(structs.replace(LOAD, workers=1), min_workers=2)
    assert decide(subject) == "no_worker"
    subject.note_load(structs.replace(LOAD, workers=2), 0.0)
    assert decide(subject) is None


def test_min_workers_zero_still_needs_one() -> None:
    assert decide(admission(structs.replace(LOAD, workers=0), min_workers=0)) == "no_worker"


def test_the_connection_after_the_last_is_refused() -> None:
    subject = admission(max_connections=5)
    assert subject.count(connections=5) is None
    refusal = subject.count(connections=6)
    assert refusal is not None and refusal.code == "max_connections"
    assert admission(max_connections=0).count(connections=10**6) is None


def test_a_long_wait_refuses_until_it_is_clearly_shorter() -> None:
    subject = admission(structs.replace(LOAD, est_wait_ms=1001), est_wait_ms_max=1000)
    assert decide(subject) == "overloaded"
    subject.note_load(structs.replace(LOAD, est_wait_ms=int(1000 * REOPEN_BELOW)), 0.0)
    assert decide(subject) == "overloaded"
    subject.note_load(structs.replace(LOAD, est_wait_ms=int(1000 * REOPEN_BELOW) - 1), 0.0)
    assert decide(subject) is None


def test_retry_after_is_the_wait_in_whole_seconds() -> None:
    subject = admission(structs.replace(LOAD, est_wait_ms=2_100))
    refusal = subject.decide(0.0, own=2, total=2, backlog_full=False, draining=False, model="")
    assert refusal is not None and refusal.retry_after_s == 3


def test_backlog_and_draining() -> None:
    subject = admission()
    backlog = subject.decide(0.0, own=1, total=1, backlog_full=True, draining=False)
    draining = subject.decide(0.0, own=1, total=1, backlog_full=False, draining=True)
    assert isinstance(backlog, Refusal) and backlog.code == "storage_backlog"
    assert isinstance(draining, Refusal) and draining.code == "draining"
    assert backlog.retry_after_s > 0 and draining.retry_after_s > 0


@pytest.mark.parametrize(
    ("load", "limits"),
    [
        (LOAD, {"admit_utilisation_max": 1e-9}),
        (structs.replace(LOAD, est_wait_ms=1001), {"est_wait_ms_max": 1000}),
    ],
)
def test_a_resumed_session_is_not_refused_for_lack_of_capacity(
    load: Load, limits: dict[str, Any]
) -> None:
    subject = admission(load, **limits)
    assert decide(subject) == "overloaded"
    assert decide(subject, resumed_at="here") is None
    assert decide(subject, resumed_at="elsewhere") is None


def test_a_session_from_elsewhere_needs_a_broker_a_worker_and_its_turn() -> None:
    assert decide(admission(None), resumed_at="elsewhere") == "no_broker"
    assert (
        decide(admission(structs.replace(LOAD, workers=0)), resumed_at="elsewhere") == "no_worker"
    )
    subject = admission(admit_sessions_per_s_max=2)
    assert [decide(subject, resumed_at="elsewhere") for _ in range(3)] == [None, None, "overloaded"]


def test_a_session_on_this_gateway_is_refused_only_while_draining() -> None:
    assert decide(admission(None), resumed_at="here") is None
    refusal = admission().decide(
        0.0, own=1, total=1, backlog_full=True, draining=True, resumed_at="here"
    )
    assert refusal is not None and refusal.code == "draining"
    assert (
        admission().decide(
            0.0, own=1, total=1, backlog_full=True, draining=False, resumed_at="here"
        )
        is None
    )


def load_of(
    *,
    workers: int = 2,
    throughput_rtfx: float = 100.0,
    arriving: float = 0.0,
    utterance_ms: int = 0,
    partials_busy: float = 0.0,
    est_wait_ms: int = 0,
) -> Load:
    """The load of one model without a name."""
    served = ServedModel(
        name="",
        model="demo",
        workers=workers,
        throughput_rtfx=throughput_rtfx,
        arriving_audio_rate=arriving,
        utterance_ms=utterance_ms,
        partials_busy=partials_busy,
        est_wait_ms=est_wait_ms,
    )
    return structs.replace(LOAD, workers=workers, served=(served,))


def test_the_first_session_is_admitted_whenever_a_worker_is_ready() -> None:
    """A model so slow that one session is more than it can do."""
    slow = load_of(throughput_rtfx=0.5, arriving=1.0, utterance_ms=9_000, est_wait_ms=9_000)
    subject = admission(slow, admit_utilisation_max=0.8, admit_p95_ms_max=3_000)
    assert decide(subject, own=1) is None
    assert decide(subject, own=2) == "overloaded"
    assert subject.decide_model(0.0, own=1, total=1, model="") is None
    assert decide(admission(load_of(workers=0)), own=1) == "no_worker"


def test_files_wait_and_are_not_refused_for_lack_of_capacity() -> None:
    full = load_of(arriving=99.0, est_wait_ms=9_000)
    subject = admission(full, admit_utilisation_max=0.8, admit_p95_ms_max=3_000)
    assert decide(subject) == "overloaded"
    assert decide(subject, lane="bulk") is None
    assert decide(subject, lane="bulk", model=None) is None
    assert subject.decide_model(0.0, own=2, total=2, model="", lane="bulk") is None
    refusal = subject.decide(0.0, own=2, total=2, backlog_full=True, draining=False, lane="bulk")
    assert refusal is not None and refusal.code == "storage_backlog"
    assert decide(admission(None), lane="bulk") == "no_broker"


# ------------------------------------------------------------------------------------- utilisation


def test_a_crowd_is_admitted_up_to_the_workers_capacity() -> None:
    """No audio has arrived, and no queue has formed: the expected rate counts."""
    assert admitted_of(admission(admit_utilisation_max=0.8), 1_500) == 80
    half = admission(admit_utilisation_max=0.8, admit_session_audio_rate=0.5)
    assert admitted_of(half, 1_500) == 160
    assert admitted_of(admission(admit_utilisation_max=0), 1_500) == 1_500


def test_to_ask_costs_nothing() -> None:
    subject = admission(admit_utilisation_max=0.8, admit_sessions_per_s_max=50)
    for _ in range(200):
        assert subject.decide(0.0, own=1, total=1, backlog_full=False, draining=False) is None


def test_audio_that_arrives_counts_as_well() -> None:
    busy = structs.replace(LOAD, arriving_audio_rate=30.0)
    assert admitted_of(admission(busy, admit_utilisation_max=0.8), 1_500, others=30) == 50
    assert (
        admitted_of(
            admission(structs.replace(LOAD, arriving_audio_rate=80.0), admit_utilisation_max=0.8), 9
        )
        == 1
    ), "the first one is admitted, and no other"


def test_a_session_that_is_expected_and_heard_already_counts_once() -> None:
    """New sessions are expected in full for some seconds. Meanwhile their audio arrives."""
    subject = admission(admit_utilisation_max=0.8)
    for _ in range(50):
        decide(subject)
    subject.note_load(
        structs.replace(LOAD, arriving_audio_rate=40.0, expected_audio_rate=50.0), NEW_SESSION_S
    )
    assert subject.utilisation(NEW_SESSION_S, own=50, total=50) == pytest.approx(0.5)
    # Of other gateways' sessions nothing has arrived yet.
    assert subject.utilisation(NEW_SESSION_S, own=50, total=90) == pytest.approx(0.9)
    subject.note_load(structs.replace(LOAD, arriving_audio_rate=60.0), NEW_SESSION_S)
    assert subject.utilisation(NEW_SESSION_S, own=50, total=50) == pytest.approx(0.6)


def test_the_expected_rate_of_a_session_fades_with_its_age() -> None:
    subject = admission()
    for _ in range(10):
        decide(subject)
    assert expected_of(subject, 0.0, own=10) == {"": 10}
    assert expected_of(subject, NEW_SESSION_S, own=10) == {"": 10}
    halfway_s = (NEW_SESSION_S + KNOWN_SESSION_S) / 2
    assert expected_of(subject, halfway_s, own=10) == {"": pytest.approx(5)}
    assert expected_of(subject, KNOWN_SESSION_S, own=10) == {"": 0}


def test_ended_sessions_have_no_expected_audio() -> None:
    subject = admission(admit_utilisation_max=0.8)
    for _ in range(1_000):
        assert decide(subject, own=1) is None  # One at a time: each has left before the next.
    assert expected_of(subject, 0.0, own=0) == {"": 0}


def test_new_sessions_of_other_gateways_count_and_our_own_not_twice() -> None:
    subject = admission()
    for _ in range(10):
        decide(subject)
    assert expected_of(subject, 0.0, own=10) == {"": 10}
    subject.note_load(structs.replace(LOAD, expected_audio_rate=10.0), 0.0)
    assert subject.utilisation(0.0, own=10, total=10) == pytest.approx(0.1)
    subject.note_load(structs.replace(LOAD, expected_audio_rate=40.0), 0.0)
    assert subject.utilisation(0.0, own=10, total=40) == pytest.approx(0.4)


def test_admission_closes_at_the_limit_and_reopens_with_hysteresis() -> None:
    subject = admission(admit_utilisation_max=0.8)
    subject.note_load(structs.replace(LOAD, arriving_audio_rate=80.0), 0.0)
    assert decide(subject) == "overloaded"
    nearly = 80 * REOPEN_UTILISATION_BELOW
    subject.note_load(structs.replace(LOAD, arriving_audio_rate=nearly - 0.5), 0.0)
    assert decide(subject) == "overloaded"
    subject.note_load(structs.replace(LOAD, arriving_audio_rate=nearly - 1.5), 0.0)
    assert decide(subject) is None


def test_the_share_of_partial_results_counts_as_well() -> None:
    subject = admission(load_of(arriving=30.0, partials_busy=0.8), admit_utilisation_max=0.8)
    # Of two workers, partial results keep 0.8 busy.
    assert subject.utilisation(0.0, own=0, total=0) == pytest.approx(0.7)
    assert admitted_of(subject, 1_500, others=30) == 10


def test_a_pause_of_present_speakers_is_no_spare_capacity() -> None:
    subject = admission(load_of(arriving=90.0), admit_utilisation_max=0.85)
    subject.note_load(load_of(arriving=60.0), 1.0)
    assert decide(subject, 1.0, own=91) == "overloaded"
    # They have left.
    assert decide(subject, 1.0, own=11) is None


# --------------------------------------------------------------------------------- time to a result


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        # Whisper base: 1.5 s for an utterance of 3 s.
        (load_of(workers=1, throughput_rtfx=2.0, utterance_ms=1_500, arriving=0.7), "overloaded"),
        (load_of(workers=2, throughput_rtfx=4.0, utterance_ms=1_500, arriving=0.7), None),
        (load_of(workers=2, throughput_rtfx=4.0, utterance_ms=1_500, arriving=1.5), "overloaded"),
        # Paraformer with 220 M parameters.
        (load_of(workers=1, throughput_rtfx=10.0, utterance_ms=350, arriving=4.2), None),
        (
            load_of(
                workers=1,
                throughput_rtfx=10.0,
                utterance_ms=350,
                arriving=4.2,
                partials_busy=0.3,
            ),
            None,
        ),
        (load_of(workers=1, throughput_rtfx=10.0, utterance_ms=350, arriving=8.0), "overloaded"),
        (load_of(arriving=90.0, utterance_ms=10), None),
    ],
)
def test_nobody_is_admitted_whose_results_would_be_late(load: Load, expected: str | None) -> None:
    assert decide(admission(load, admit_p95_ms_max=3_000)) == expected


# ----------------------------------------------------------------------------------- workers needed


WHISPER_BASE = {"throughput_rtfx": 5.8, "utterance_ms": 517}
SLOW = {"throughput_rtfx": 2.0, "utterance_ms": 1_500}
FAST = {"throughput_rtfx": 150.0, "utterance_ms": 20}


def load_with(workers: int, of_one: dict[str, Any], **values: Any) -> Load:
    """The load of ``workers`` workers, each with the speed of ``of_one``."""
    throughput = workers * of_one["throughput_rtfx"]
    of_all = {**of_one, "throughput_rtfx": throughput}
    return load_of(workers=workers, **of_all, **values)


def needed_by(load: Load, **limits: Any) -> float:
    (needed,) = admission(load, **limits).workers_needed(0.0, own=99, total=99).values()
    return needed


@pytest.mark.parametrize("of_one", [WHISPER_BASE, SLOW, FAST])
@pytest.mark.parametrize("sessions", [1, 4, 20, 300])
@pytest.mark.parametrize("partials_busy", [0.0, 1.3])
def test_with_the_workers_needed_admission_opens_and_with_fewer_it_does_not(
    of_one: dict[str, Any], sessions: int, partials_busy: float
) -> None:
    limits = {"admit_utilisation_max": 0.88, "admit_p95_ms_max": 3_000}
    arriving = {"arriving": 0.75 * sessions, "partials_busy": partials_busy}
    needed = needed_by(load_with(1, of_one, **arriving), **limits)
    for workers in range(1, math.ceil(needed) + 2):
        subject = admission(load_with(1, of_one, arriving=999.0), **limits)
        assert decide(subject, own=500) == "overloaded"  # It is closed.
        later_s = 3_600.0
        subject.note_load(load_with(workers, of_one, **arriving), later_s)
        opens = decide(subject, later_s, own=500) is None
        assert opens == (workers >= needed), (workers, needed)


def test_the_workers_needed_do_not_depend_on_those_present() -> None:
    limits = {"admit_utilisation_max": 0.88, "admit_p95_ms_max": 3_000}
    found = {needed_by(load_with(n, WHISPER_BASE, arriving=9.0), **limits) for n in (1, 3, 40)}
    assert max(found) == pytest.approx(min(found), rel=0.02)


def test_workers_that_would_not_help_are_not_needed() -> None:
    """Each utterance takes longer than the limit."""
    slow = load_of(workers=1, throughput_rtfx=1.0, utterance_ms=3_000, arriving=0.7)
    limits = {"admit_utilisation_max": 0.8, "admit_p95_ms_max": 3_000}
    assert needed_by(slow, **limits) == pytest.approx(1.7 / (0.8 * REOPEN_UTILISATION_BELOW))


def test_without_limits_the_workers_needed_are_those_kept_busy() -> None:
    assert needed_by(load_of(arriving=49.0, partials_busy=0.3)) == pytest.approx(1.3)
    assert needed_by(load_of(arriving=0.0), admit_session_audio_rate=0.0) == 0.0


def test_of_a_model_without_workers_it_is_not_known_how_many_it_needs() -> None:
    subject = admission(of_two(ZH, structs.replace(EN, workers=0, throughput_rtfx=0.0)))
    assert subject.workers_needed(0.0, own=0, total=0).keys() == {"zh"}
    assert subject.workers_needed(60.0, own=0, total=0) == {}


# -------------------------------------------------------------------------- this gateway's own work


def beat(subject: Admission, delay_s: float, from_s: float, seconds: float) -> float:
    """Send four probes a second, each late by ``delay_s``; return the time after the last."""
    now_s = from_s
    while now_s < from_s + seconds:
        subject.note_probe_due(now_s + 0.25)
        now_s += 0.25 + delay_s
        subject.note_probe(now_s)
        subject.note_load(LOAD, now_s)
    return now_s


def test_a_gateway_refuses_while_a_frame_takes_too_long() -> None:
    subject = admission(admit_delay_ms_max=300)
    now_s = beat(subject, 0.02, 0.0, 3.0)
    assert decide(subject, now_s) is None
    now_s = beat(subject, 0.5, now_s, 4.0)
    assert decide(subject, now_s) == "overloaded"
    now_s = beat(subject, 0.02, now_s, 4.0)
    assert decide(subject, now_s) is None


def test_one_pause_is_not_an_overload() -> None:
    subject = admission(admit_delay_ms_max=300)
    now_s = beat(subject, 0.02, 0.0, 3.0)
    subject.note_probe_due(now_s)
    now_s += 0.5
    assert decide(subject, now_s - 0.4) is None
    subject.note_probe(now_s)
    subject.note_load(LOAD, now_s)
    assert decide(subject, now_s) is None


def test_a_probe_that_never_returns_is_a_delay() -> None:
    subject = admission(admit_delay_ms_max=300)
    now_s = beat(subject, 0.02, 0.0, 3.0)
    subject.note_probe_due(now_s)
    later_s = now_s + DELAY_MEMORY_S + 0.4
    subject.note_load(LOAD, later_s)
    assert decide(subject, later_s) == "overloaded"


def busy(
    subject: Admission, share: float, from_s: float, for_s: float, audio_rate: float = 0.0
) -> float:
    now_s = from_s
    while now_s < from_s + for_s:
        now_s += 0.25
        subject.note_busy(share, now_s, audio_rate=audio_rate)
        subject.note_load(LOAD, now_s)
    return now_s


def test_a_busy_gateway_refuses_until_it_is_less_busy() -> None:
    subject = admission(admit_busy_max=0.8)
    now_s = busy(subject, 0.7, 0.0, 20.0, audio_rate=300)
    assert decide(subject, now_s, own=300) is None
    now_s = busy(subject, 0.9, now_s, 20.0, audio_rate=300)
    assert decide(subject, now_s, own=300) == "overloaded"
    now_s = busy(subject, 0.78, now_s, 20.0, audio_rate=300)
    assert decide(subject, now_s, own=300) == "overloaded", "no hysteresis"
    now_s = busy(subject, 0.6, now_s, 20.0, audio_rate=300)
    assert decide(subject, now_s, own=300) is None


def test_other_work_than_audio_counts() -> None:
    subject = admission(admit_busy_max=0.8)
    now_s = busy(subject, 0.9, 0.0, 20.0)
    assert decide(subject, now_s, own=2) == "overloaded"
    now_s = busy(subject, 0.1, now_s, 20.0)
    assert decide(subject, now_s, own=2) is None


def test_clients_faster_than_real_time_do_not_cause_refusals() -> None:
    subject = admission(admit_busy_max=0.8)
    now_s = busy(subject, 1.0, 0.0, 20.0, audio_rate=300.0)
    # Of four connections, one of which sends as fast as it can, little of it is in real time.
    assert subject.busy(now_s, own=4) == pytest.approx(5 / 300, rel=0.05)
    assert decide(subject, now_s, own=5) is None
    # Not even while it is not known yet what that audio costs.
    subject = admission(admit_busy_max=0.2)
    now_s = busy(subject, 1.0, 0.0, 0.5, audio_rate=20.0)
    assert subject.busy(now_s, own=1) < 0.15
    # 350 clients in real time send nearly all of the audio.
    subject = admission(admit_busy_max=0.8)
    now_s = busy(subject, 1.0, now_s, 10.0, audio_rate=350.0)
    assert decide(subject, now_s, own=350) == "overloaded"


def test_sessions_that_do_not_show_yet_count() -> None:
    subject = admission(admit_busy_max=0.8)
    now_s = busy(subject, 0.5, 0.0, 20.0, audio_rate=500.0)
    # 500 make 0.5, so another 300 make 0.8.
    admitted = 0
    for _ in range(1_500):
        admitted += decide(subject, now_s, own=500 + admitted + 1) is None
    assert 296 <= admitted <= 304
    # A few seconds later they show themselves.
    now_s = busy(subject, 0.7, now_s, SEEN_SESSION_S + 20.0, audio_rate=800.0)
    assert decide(subject, now_s, own=801) is None


def test_the_first_sessions_are_guessed() -> None:
    subject = admission(admit_busy_max=0.8)
    now_s = busy(subject, 0.0, 0.0, 3.0)
    assert admitted_of(subject, 1_500, now_s) == pytest.approx(0.8 / SESSION_BUSY, abs=2)


def test_a_busy_gateway_does_not_reopen_for_a_moment_in_which_it_is_less_busy() -> None:
    subject = admission(admit_busy_max=0.86)
    now_s = busy(subject, 0.9, 0.0, 5.0, audio_rate=500)
    assert decide(subject, now_s, own=500) == "overloaded"
    now_s = busy(subject, 0.84, now_s, 30.0, audio_rate=500)
    assert decide(subject, now_s, own=500) == "overloaded"
    now_s = busy(subject, 0.7, now_s, 2.0, audio_rate=420)
    assert decide(subject, now_s, own=500) == "overloaded"
    now_s = busy(subject, 0.7, now_s, 10.0, audio_rate=420)
    assert decide(subject, now_s, own=500) is None


@pytest.mark.parametrize("join_busy", [0.0, 0.002, 0.006])
def test_the_one_time_cost_of_new_sessions_is_not_counted_as_steady_cost(
    join_busy: float,
) -> None:
    """50 new sessions a second, each of which takes 1.5 ms a second and ``join_busy`` once."""
    subject = admission(admit_busy_max=0.8)
    seen = 0
    for step in range(40):
        now_s = step / 4
        share = min(1.0, 0.0015 * seen + 50 * join_busy)
        subject.note_busy(share, now_s, audio_rate=seen)
        subject.note_load(LOAD, now_s)
        for _ in range(13 if step % 2 else 12):
            assert decide(subject, now_s, own=seen + 1) is None, f"{seen} admitted"
            seen += 1
    assert seen == 500


def test_sessions_are_admitted_no_faster_than_the_limit() -> None:
    subject = admission(admit_sessions_per_s_max=50)
    assert admitted_of(subject, 1_500) == 50
    assert admitted_of(subject, 1_500, now_s=0.5) == 25
    assert decide(subject, 0.501) == "overloaded"
    for second in range(1, 4):
        subject.note_load(LOAD, second * 10.0)
        assert admitted_of(subject, 1_500, now_s=second * 10.0) == 50


# ----------------------------------------------------------------------------------- several models


def of_two(zh: ServedModel, en: ServedModel) -> Load:
    return structs.replace(LOAD, workers=zh.workers + en.workers, served=(en, zh))


ZH = ServedModel(name="zh", model="p", workers=1, throughput_rtfx=50.0)
EN = ServedModel(name="en", model="w", workers=1, throughput_rtfx=20.0)


def test_a_model_without_workers_refuses_its_sessions_only() -> None:
    subject = admission(of_two(ZH, structs.replace(EN, workers=0, throughput_rtfx=0.0)))
    assert decide(subject, model="en") == "no_worker"
    assert decide(subject, model="zh") is None
    assert decide(subject, model=None) is None
    refusal = subject.readiness(0.0, "en")
    assert refusal is not None and "of model en" in refusal.message
    assert subject.readiness(0.0) is None
    assert decide(subject, model="fr") == "no_worker"
    refusal = subject.readiness(0.0, "fr")
    assert refusal is not None
    assert refusal.message == "no worker serves model fr; served models: en, zh"


def test_a_model_with_a_long_wait_refuses_its_sessions_only() -> None:
    subject = admission(of_two(ZH, structs.replace(EN, est_wait_ms=1001)), est_wait_ms_max=1000)
    assert decide(subject, model="en") == "overloaded"
    assert decide(subject, model="zh") is None
    assert decide(subject, model=None) is None


def test_each_model_is_filled_up_to_its_own_capacity() -> None:
    subject = admission(of_two(ZH, EN), admit_utilisation_max=0.8)
    assert [decide(subject, own=99, model="en") for _ in range(17)] == [*[None] * 16, "overloaded"]
    assert [decide(subject, own=99, model="zh") for _ in range(41)] == [*[None] * 40, "overloaded"]
    assert decide(subject, own=99, model=None) == "overloaded"
    assert expected_of(subject, 0.0, own=99) == {"en": 16, "zh": 40}
    assert subject.utilisation(0.0, own=99, total=99) == pytest.approx(0.8)


def test_a_session_counts_once_its_model_is_known() -> None:
    subject = admission(of_two(ZH, EN), admit_utilisation_max=0.8)
    assert [decide(subject, own=99, model=None) for _ in range(50)] == [None] * 50
    assert expected_of(subject, 0.0, own=99) == {"en": 0, "zh": 0}
    assert subject.decide_model(0.0, own=99, total=99, model="en") is None
    subject.note_model(0.0, "en")
    assert expected_of(subject, 0.0, own=99) == {"en": 1, "zh": 0}


def test_what_other_gateways_expect_of_a_model_counts_for_it() -> None:
    full = structs.replace(EN, expected_audio_rate=18.0)
    subject = admission(of_two(ZH, full), admit_utilisation_max=0.8)
    assert decide(subject, model="en", others=18) == "overloaded"
    assert decide(subject, model="zh", others=18) is None


def test_a_broker_of_an_earlier_release_serves_one_model_without_a_name() -> None:
    (whole,) = served_by(structs.replace(LOAD, est_wait_ms=7, expected_audio_rate=3.0))
    assert (whole.name, whole.model, whole.workers) == ("", "demo", 2)
    assert (whole.est_wait_ms, whole.expected_audio_rate) == (7, 3.0)
    assert served_by(structs.replace(LOAD, workers=0)) == ()
    assert served_by(of_two(ZH, EN)) == (EN, ZH)


def test_a_saturated_link_to_the_broker_refuses_all_but_the_first() -> None:
    subject = admission()
    subject.note_broker_delay(BROKER_DELAY_S_MAX)
    assert decide(subject) is None
    subject.note_broker_delay(BROKER_DELAY_S_MAX + 0.1)
    assert decide(subject) == "overloaded"
    assert decide(subject, own=1) is None
    subject.note_broker_delay(BROKER_DELAY_S_MAX * REOPEN_BELOW + 0.1)
    assert decide(subject) == "overloaded"
    subject.note_broker_delay(0.0)
    assert decide(subject) is None
