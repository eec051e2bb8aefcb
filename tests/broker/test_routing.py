"""The routing core: the actions that follow from each message."""

from __future__ import annotations

import pytest
from msgspec import structs

from broker import answers
from broker import events as e
from broker import limits as limit
from tests.broker.driving import (
    DEFAULTS,
    GATEWAY,
    OTHER_GATEWAY,
    OTHER_WORKER,
    WELCOME,
    WORKER,
    Driver,
    failure,
    job,
    published,
    result,
    worker_job,
)
from wire import messages as m
from wire import versions

BOTH = (GATEWAY, WORKER)


# ---------------------------------------------------------------------------------- gateways


def test_hello_is_answered_each_time() -> None:
    driver = Driver()
    driver.hello()
    driver.now_s += 1.5
    driver.hello()
    numbered = m.Hello(gateway_id=GATEWAY.decode(), number=7)
    answer = structs.replace(WELCOME, hello=7, received_ms=round(driver.now_s * 1000))
    assert driver.front(numbered) == [e.Send("front", GATEWAY, answer)]
    driver.broker.is_late = True
    unknown = structs.replace(answer, received_ms=0)
    assert driver.front(numbered) == [e.Send("front", GATEWAY, unknown)]


def test_hello_with_another_identity_is_refused() -> None:
    driver = Driver()
    actions = driver.front(m.Hello(gateway_id="gateway-2"), GATEWAY)
    assert actions == [e.Count("identity_mismatch")]
    assert len(driver.broker.gateways) == 0


def test_a_gateway_without_a_common_protocol_version_is_refused() -> None:
    driver = Driver()
    hello = m.Hello(gateway_id=GATEWAY.decode(), version_min=2, version_max=3)
    refused = e.Send("front", GATEWAY, m.Refused(version_min=1, version_max=1))
    assert driver.front(hello) == [e.Count("version_refused"), refused]
    assert len(driver.broker.gateways) == 0
    assert driver.front(structs.replace(hello, version_min=1)) == [
        e.Send("front", GATEWAY, driver.answer_to_hello)
    ]


def test_a_worker_without_a_common_protocol_version_is_refused() -> None:
    driver = Driver()
    ready = m.Ready(
        worker_id=WORKER.decode(),
        credits=1,
        model="demo",
        device="cpu",
        version_min=2,
        version_max=2,
    )
    refused = e.Send("back", WORKER, m.Refused(version_min=1, version_max=1))
    assert driver.back(ready) == [e.Count("version_refused"), refused]
    assert driver.broker.load().workers == 0
    # Its heartbeats make the broker ask for another Ready, which a newer broker may accept.
    assert driver.beat() == [e.Count("unknown_worker"), e.Send("back", WORKER, WELCOME)]


def test_jobs_lost_with_a_workers_connection_are_assigned_at_once(driver: Driver) -> None:
    for seq in range(3):
        driver.front(job(seq))
    ready = m.Ready(
        worker_id=WORKER.decode(),
        credits=4,
        model="demo",
        device="cpu",
        broker_epoch="epoch",
        held=(m.JobAttempt(job_id=2, attempt=1),),
    )
    actions = driver.back(ready)
    assert e.Count("worker_reconnected") in actions and e.Send("back", WORKER, WELCOME) in actions
    again = [
        a.message
        for a in actions
        if isinstance(a, e.Send) and a.side == "back" and a.message != WELCOME
    ]
    assert [(j.job_id, j.attempt) for j in again if isinstance(j, m.WorkerJob)] == [(1, 2), (3, 2)]
    # The one that it holds continues, and none counts as lost by the worker.
    answer = result(job(1))
    assert driver.answer(2) == [e.Send("front", GATEWAY, answer), published(answer)]
    assert driver.answer(1, attempt=2)[0] == e.Send("front", GATEWAY, result(job(0), attempt=2))


def test_a_job_lost_with_a_connection_is_assigned_under_a_new_number(driver: Driver) -> None:
    """A job may reach a worker on its new connection, and be answered, before the broker has taken
    the ``Ready``, without the job, that the worker sent first. The worker answers no number twice,
    and would not answer the one that the broker had taken back."""
    driver.front(job())
    ready = m.Ready(
        worker_id=WORKER.decode(), credits=4, model="demo", device="cpu", broker_epoch="epoch"
    )
    assert e.Send("back", WORKER, worker_job(job(), 1, attempt=2)) in driver.back(ready)
    assert driver.answer(1) == [e.Count("stale_result")]
    answer = result(job(), attempt=2)
    assert driver.answer(1, attempt=2) == [e.Send("front", GATEWAY, answer), published(answer)]


def test_a_peer_at_the_endpoint_of_others_is_answered_with_its_wrong_setting() -> None:
    driver = Driver()
    for side, message, setting in (
        ("front", m.Ready(worker_id="w", credits=1, model="m", device="cpu"), "BROKER_BACKEND"),
        ("back", m.Hello(gateway_id="g"), "BROKER_FRONTEND"),
        ("back", m.Stored(gateway_id="g", keys=()), "BROKER_FRONTEND"),
    ):
        send = driver.front if side == "front" else driver.back
        answered, counted = send(message, b"other")
        assert counted == e.Count(f"{side}_unexpected")
        assert isinstance(answered, e.Send) and isinstance(answered.message, m.Refused)
        assert (answered.side, answered.identity) == (side, b"other")
        assert answered.message.setting == setting
        assert versions.explain(answered.message, "asr")[1]["setting"] == setting


def test_peers_of_another_system_are_not_served() -> None:
    driver = Driver(system_id="one")
    refused = m.Refused(version_min=1, version_max=1, system_id="one")
    driver.hello()
    foreign = m.Hello(gateway_id=GATEWAY.decode(), system_id="two")
    assert driver.front(foreign) == [e.Count("system_refused"), e.Send("front", GATEWAY, refused)]
    assert len(driver.broker.gateways) == 0
    # Nor by anything else that it sends.
    assert driver.front(job()) == [e.Count("refused_gateway")]
    assert driver.front(structs.replace(foreign, system_id="one")) == [
        e.Send("front", GATEWAY, driver.answer_to_hello)
    ]
    ready = m.Ready(worker_id=WORKER.decode(), credits=1, model="demo", device="cpu")
    of_two = structs.replace(ready, system_id="two")
    assert driver.back(of_two) == [e.Count("system_refused"), e.Send("back", WORKER, refused)]
    assert driver.broker.load().workers == 0
    stored = m.Stored(gateway_id=GATEWAY.decode(), system_id="two", keys=())
    assert driver.front(stored, b"persistence") == [e.Count("system_refused")]


def test_peers_of_a_release_without_system_ids_are_served() -> None:
    driver = Driver(system_id="one")
    driver.hello()
    assert driver.ready() == []


def test_any_message_starts_the_lease_of_a_gateway() -> None:
    """After a restart of the broker, gateways keep their identities."""
    driver = Driver()
    assert driver.front(job()) == [e.Send("front", GATEWAY, WELCOME)]
    assert GATEWAY in driver.broker.gateways


def test_an_identity_that_is_not_utf_8_is_not_served() -> None:
    driver = Driver()
    assert driver.front(job(), b"\xff\x00") == [e.Count("identity_mismatch")]


def test_gateways_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "GATEWAYS_MAX", 1)
    driver = Driver()
    driver.hello()
    assert driver.front(job(), OTHER_GATEWAY) == [e.Count("gateways_full")]


def test_queued_jobs_of_a_silent_gateway_are_dropped(driver: Driver) -> None:
    driver.front(job(0))
    for seq in range(1, 6):
        driver.front(job(seq))
    assert len(driver.broker.scheduler.models["demo"].queue) == 2
    actions = driver.tick(5.5, alive=(WORKER,))
    assert actions == [e.Count("gateway_lease_ended"), *[e.Count("gateway_lost")] * 2]
    assert driver.ended == [e.LeaseEnded(GATEWAY, 6)]
    answer = result(job(0))
    assert driver.answer(1) == [e.Count("result_for_lost_gateway"), published(answer)]


def test_back_socket_messages_on_front_are_counted(driver: Driver) -> None:
    beat = m.Heartbeat(worker_id="worker-1", busy_ms=0)
    assert driver.front(beat) == [e.Count("front_unexpected")]
    assert driver.handle(e.Rejected("front", GATEWAY)) == [e.Count("front_malformed")]


def test_refused_sends_to_gateways_are_counted(driver: Driver) -> None:
    refused = e.Unsent(e.Send("front", GATEWAY, result(job())))
    assert driver.handle(refused) == [e.Count("unsent_result")]
    assert GATEWAY in driver.broker.gateways


# -------------------------------------------------------------------------------------- jobs


def test_job_goes_to_the_worker_and_its_result_back(driver: Driver) -> None:
    assert driver.front(job()) == [e.Send("back", WORKER, worker_job(job(), 1))]
    driver.now_s += 0.5
    answer = result(job())
    assert driver.answer(1) == [e.Send("front", GATEWAY, answer), published(answer)]
    assert len(driver.broker.scheduler.jobs) == 0


def test_token_times_are_moved_to_the_timeline_of_the_session(driver: Driver) -> None:
    driver.front(job(2))
    actions = driver.answer(1, tokens=(m.Token(text="一", start_ms=10, end_ms=90),))
    tokens = (m.Token(text="一", start_ms=20_010, end_ms=20_090),)
    assert actions[0] == e.Send("front", GATEWAY, result(job(2), tokens=tokens))


def test_a_voice_print_is_for_the_gateway_and_not_published(driver: Driver) -> None:
    driver.front(structs.replace(job(), speakers=True))
    sent, stored = driver.answer(1, embedding=b"\0\0\x80?")
    answer = result(job())
    assert sent == e.Send("front", GATEWAY, structs.replace(answer, embedding=b"\0\0\x80?"))
    assert stored == published(answer)


def test_a_worker_is_asked_for_speakers(driver: Driver) -> None:
    for wanted in (True, False):
        (sent,) = driver.front(structs.replace(job(int(wanted)), speakers=wanted))
        assert (
            isinstance(sent, e.Send)
            and sent.side == "back"
            and isinstance(sent.message, m.WorkerJob)
        )
        assert sent.message.speakers is wanted


def test_queue_ms_is_the_wait_for_a_worker() -> None:
    driver = Driver()
    driver.hello()
    driver.front(job())
    driver.now_s += 0.25
    assert driver.ready() == [e.Send("back", WORKER, worker_job(job(), 1))]
    assert driver.answer(1)[0] == e.Send("front", GATEWAY, result(job(), queue_ms=250))


def test_a_job_sent_again_is_not_queued_twice(driver: Driver) -> None:
    driver.front(job())
    assert driver.front(job()) == [e.Count("duplicate_job")]


def test_the_gateway_that_sent_a_job_last_receives_the_result(driver: Driver) -> None:
    driver.front(job())
    driver.hello(OTHER_GATEWAY)
    assert driver.front(job(), OTHER_GATEWAY) == [e.Count("duplicate_job")]
    answer = result(job())
    assert driver.answer(1) == [
        e.Send("front", OTHER_GATEWAY, answer),
        published(answer, OTHER_GATEWAY),
    ]


def test_job_sent_again_after_its_result_is_recognised_again(driver: Driver) -> None:
    driver.front(job())
    driver.answer(1)
    assert driver.front(job()) == [e.Send("back", WORKER, worker_job(job(), 2))]


def test_workers_error_is_the_segments_result(driver: Driver) -> None:
    driver.front(job())
    error = m.Failure(code="recognition_failed", message="no")
    answer = result(job(), text=None, error=error)
    actions = driver.answer(1, text=None, error=error)
    assert actions == [e.Send("front", GATEWAY, answer), published(answer)]
    assert driver.broker.load().failed_total == 1


def test_full_queue_answers_overloaded() -> None:
    driver = Driver(structs.replace(DEFAULTS, queue_audio_ms_max=2_000))
    driver.hello()
    assert driver.front(job(0)) == driver.front(job(1)) == []
    refusal = failure(job(2), answers.OVERLOADED, attempt=0)
    assert driver.front(job(2)) == [e.Count("overloaded"), e.Send("front", GATEWAY, refusal)]
    assert driver.broker.load().failed_total == 0


def test_the_number_of_queued_jobs_is_limited() -> None:
    driver = Driver(structs.replace(DEFAULTS, queue_jobs_max=1))
    driver.hello()
    driver.front(job(0))
    assert driver.front(job(1))[0] == e.Count("overloaded")


def test_deadline_ends_a_queued_job() -> None:
    driver = Driver()
    driver.hello()
    driver.front(job(deadline_ms=900))
    driver.now_s += 0.9
    answer = failure(job(), answers.DEADLINE, attempt=0)
    assert driver.tick() == [e.Send("front", GATEWAY, answer), published(answer)]


def test_deadline_ends_an_assigned_job_and_its_result_is_abandoned(driver: Driver) -> None:
    driver.front(job(deadline_ms=900))
    driver.now_s += 0.9
    answer = failure(job(), answers.DEADLINE, attempt=1)
    assert driver.tick() == [e.Send("front", GATEWAY, answer), published(answer)]
    assert driver.answer(1) == [e.Count("abandoned_result")]


def test_cancel_drops_queued_and_assigned_jobs(driver: Driver) -> None:
    for seq in range(5):
        driver.front(job(seq))
    cancel = m.Cancel(session_id="session")
    assert driver.front(cancel, OTHER_GATEWAY) == [
        e.Send("front", OTHER_GATEWAY, WELCOME),
        *[e.Count("cancelled")] * 5,
    ]
    assert driver.answer(1) == [e.Count("abandoned_result")]
    assert driver.front(cancel) == []


# -------------------------------------------------------------------------------- takeovers


def test_a_newer_generation_replaces_the_job_and_an_older_is_refused() -> None:
    driver = Driver()
    old = job()
    new = structs.replace(old, generation=1, pcm=b"\1\0" * 100)
    driver.front(old, GATEWAY)
    assert e.Count("superseded_generation") in driver.front(new, OTHER_GATEWAY)
    assert e.Count("stale_generation") in driver.front(old, GATEWAY)
    (entry,) = driver.broker.scheduler.jobs
    assert (entry.gateway, entry.job.pcm) == (OTHER_GATEWAY, new.pcm)


def test_a_partial_of_an_older_generation_is_late() -> None:
    driver = Driver()
    driver.front(structs.replace(job(partial=True, seq=0), generation=1), OTHER_GATEWAY)
    assert e.Count("partial_late") in driver.front(job(partial=True, seq=3), GATEWAY)


def test_a_claim_is_sent_to_each_other_gateway() -> None:
    driver = Driver()
    for gateway in (GATEWAY, OTHER_GATEWAY):
        driver.front(m.Hello(gateway_id=gateway.decode(), expected_audio_rate=0.0), gateway)
    claim = m.Claim(session_id="session", generation=2, resume_token_hash="h")
    claimed = m.Claimed(session_id="session", generation=2, resume_token_hash="h")
    assert driver.front(claim, GATEWAY) == [e.Send("front", OTHER_GATEWAY, claimed)]


# ------------------------------------------------------------------------- records and storage


def test_record_is_published(driver: Driver) -> None:
    record = m.Record(session_id="session", record_seq=3, body={"type": "x"})
    expected = m.PublishedRecord(broker_epoch="epoch", gateway_id="gateway-1", record=record)
    assert driver.front(record) == [e.Publish(expected)]
    assert driver.handle(e.Unsent(e.Publish(expected))) == [e.Count("subscriber_full")]


def test_nothing_is_published_without_a_subscriber(driver: Driver) -> None:
    record = m.Record(session_id="session", record_seq=3, body={})
    without = driver.handle(e.SubscriptionChanged(b"", False))
    assert without == [e.Send("front", GATEWAY, driver.broker.load())], "gateways learn it at once"
    assert driver.front(record) == [e.Count("no_subscriber")]
    assert not driver.broker.load().subscribed
    driver.handle(e.SubscriptionChanged(b"result", True))
    foreign = e.SubscriptionChanged(b"something else", True)
    assert driver.handle(foreign) == [e.Count("foreign_topic")]
    assert driver.front(record) == [e.Count("no_subscriber")]
    again = driver.handle(e.SubscriptionChanged(b"record", True))
    assert again == [e.Send("front", GATEWAY, driver.broker.load())]
    assert driver.broker.load().subscribed
    assert isinstance(driver.front(record)[0], e.Publish)


def test_stored_goes_to_its_gateway(driver: Driver) -> None:
    keys = (m.StoredKey(session_id="session", kind="result", seq=0),)
    stored = m.Stored(gateway_id="gateway-1", keys=keys)
    assert driver.front(stored, b"persistence") == [e.Send("front", GATEWAY, stored)]
    unknown = m.Stored(gateway_id="gateway-9", keys=keys)
    assert driver.front(unknown, b"persistence") == [e.Count("stored_for_unknown_gateway")]
    assert b"persistence" not in driver.broker.gateways


# --------------------------------------------------------------------------------- partials


def partial(end_ms: int, seq: int = 0) -> m.Job:
    return job(seq, partial=True, audio_ms=100, end_ms=end_ms)


def test_partial_is_delivered_and_not_published(driver: Driver) -> None:
    assert driver.front(partial(100)) == [e.Send("back", WORKER, worker_job(partial(100), 1))]
    assert driver.answer(1) == [e.Send("front", GATEWAY, result(partial(100)))]


def test_a_newer_partial_replaces_a_queued_one() -> None:
    driver = Driver()
    driver.hello()
    driver.front(partial(100))
    assert driver.front(partial(200)) == [e.Count("partial_superseded")]
    assert driver.front(partial(150)) == [e.Count("partial_late")]
    assert driver.ready() == [e.Send("back", WORKER, worker_job(partial(200), 2))]


def test_final_job_replaces_its_partials(driver: Driver) -> None:
    driver.front(partial(100))
    driver.front(partial(200))
    actions = driver.front(job())
    assert actions == [
        *[e.Count("partial_superseded")] * 2,
        e.Send("back", WORKER, worker_job(job(), 3)),
    ]
    assert driver.answer(1) == [e.Count("abandoned_result")]
    assert driver.front(partial(300)) == [e.Count("partial_late")]


def test_partials_wait_for_finals_and_leave_credits_for_them(driver: Driver) -> None:
    """A quarter of four credits: one partial at a time."""
    driver.front(job(0, session_id="a", partial=True))
    assert driver.front(job(0, session_id="b", partial=True)) == []
    final = job(0, session_id="c")
    assert driver.front(final) == [e.Send("back", WORKER, worker_job(final, 3))]


def test_partial_that_waited_too_long_is_dropped() -> None:
    driver = Driver()
    driver.hello()
    driver.front(partial(100))
    assert driver.tick(2.5, alive=(GATEWAY,)) == [e.Count("partial_expired")]


def test_lost_or_refused_partial_is_only_counted() -> None:
    driver = Driver(structs.replace(DEFAULTS, queue_audio_ms_max=1_500))
    driver.hello()
    driver.front(job(0, session_id="a", audio_ms=1_450))
    assert driver.front(partial(100)) == [e.Count("partial_overloaded")]
    driver.ready(credits=2)
    driver.front(partial(100))
    assert driver.bye((1, 1), (2, 1)) == [e.Count("partial_lost")]


# ---------------------------------------------------------------------------------- workers


@pytest.mark.parametrize(
    "ready",
    [
        m.Ready(worker_id="worker-9", credits=1, model="demo", device="cpu"),
        m.Ready(worker_id="worker-1", credits=0, model="demo", device="cpu"),
    ],
)
def test_bad_ready_is_refused(ready: m.Ready) -> None:
    assert Driver().back(ready) == [e.Count("bad_ready")]


def test_workers_have_a_limit(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    monkeypatch.setattr(limit, "WORKERS_MAX", 1)
    ready = m.Ready(worker_id="worker-2", credits=1, model="demo", device="cpu")
    assert driver.back(ready, OTHER_WORKER) == [e.Count("workers_full")]


def test_an_unknown_worker_gets_a_welcome_once_per_interval() -> None:
    driver = Driver()
    welcome = [e.Count("unknown_worker"), e.Send("back", WORKER, WELCOME)]
    assert driver.beat() == welcome
    assert driver.answer(1) == [e.Count("unknown_worker")]
    driver.now_s += 1.0
    assert driver.beat() == welcome


def test_a_worker_with_too_many_protocol_errors_is_quarantined(driver: Driver) -> None:
    driver.front(job(0))
    driver.ready(OTHER_WORKER)
    for job_id in range(limit.PROTOCOL_ERRORS_MAX - 2):
        assert driver.answer(100 + job_id) == [e.Count("unheld_result")]
    assert driver.handle(e.Rejected("back", WORKER)) == [e.Count("back_malformed")]
    assert driver.back(m.Hello(gateway_id="x")) == [
        e.Count("back_unexpected"),
        e.Count("worker_quarantined"),
        e.Send("back", OTHER_WORKER, worker_job(job(0), 1, attempt=2)),
    ]
    assert driver.answer(1) == [e.Count("quarantined")]
    ready = m.Ready(worker_id="worker-1", credits=1, model="demo", device="cpu")
    assert driver.back(ready) == [e.Count("quarantined")]


def test_no_lease_ends_because_the_broker_was_stopped(driver: Driver) -> None:
    driver.front(job())
    driver.now_s += 60.0
    actions = [
        a for a in driver.handle(e.Tick()) if not (isinstance(a, e.Send) and a.side == "front")
    ]
    assert actions == [e.Count("attempt_deadline")]
    assert driver.broker.load().workers == 1
    assert GATEWAY in driver.broker.gateways


# ------------------------------------------------------------------------------------- load


def test_load_is_sent_four_times_a_second(driver: Driver) -> None:
    sent = 0
    for _ in range(16):
        driver.now_s += 1 / 16
        sent += sum(
            isinstance(a, e.Send) and a.side == "front" and isinstance(a.message, m.Load)
            for a in driver.handle(e.Tick())
        )
    assert sent == 4


def test_load_counts(driver: Driver) -> None:
    throughput_rtfx = driver.broker.load().throughput_rtfx
    assert throughput_rtfx == pytest.approx(limit.THROUGHPUT_INITIAL_RTFX)
    assert driver.broker.load() == m.Load(
        broker_epoch="epoch",
        queued_audio_ms=0,
        queued=0,
        in_flight=0,
        failed_total=0,
        workers=1,
        workers_busy=0,
        throughput_rtfx=throughput_rtfx,
        est_wait_ms=0,
        models=("demo",),
        arriving_audio_rate=0.0,
        expected_audio_rate=0.0,
        served=(
            m.ServedModel(
                name="demo",
                model="demo",
                workers=1,
                throughput_rtfx=throughput_rtfx,
                utterance_ms=round(limit.UTTERANCE_MS_INITIAL / limit.THROUGHPUT_INITIAL_RTFX),
            ),
        ),
    )
    for seq in range(6):
        driver.front(job(seq))
    load = driver.broker.load()
    assert (load.queued, load.queued_audio_ms, load.in_flight) == (2, 2_000, 4)
    assert (load.workers_busy, load.est_wait_ms) == (1, 300)


def test_throughput_is_measured(driver: Driver) -> None:
    """2 s of audio every 10 ms, until the initial assumption has decayed."""
    for seq in range(3_000):
        driver.broker.handle(e.Received("front", GATEWAY, job(seq, audio_ms=2_000)), driver.now_s)
        driver.now_s += 0.01
        answer = m.WorkerResult(
            broker_epoch="epoch",
            job_id=seq + 1,
            attempt=1,
            text="",
            error=None,
            tokens=(),
            infer_ms=10,
        )
        driver.broker.handle(e.Received("back", WORKER, answer), driver.now_s)
    assert driver.broker.load().throughput_rtfx == pytest.approx(200, rel=0.05)


def test_wait_is_longest_without_workers() -> None:
    driver = Driver()
    driver.hello()
    assert driver.broker.load().est_wait_ms == 0
    driver.front(job())
    assert driver.broker.load().est_wait_ms == limit.EST_WAIT_REPORTED_MS_MAX
