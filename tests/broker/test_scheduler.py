"""Attempts: assignment, loss, return and the retry limit."""

from __future__ import annotations

import math

import pytest

from broker import answers
from broker import events as e
from broker import limits as limit
from tests.broker.driving import (
    DEFAULTS,
    GATEWAY,
    OTHER_WORKER,
    STREAMED_S,
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

BOTH = (GATEWAY, WORKER)


def test_worker_gets_no_more_than_its_credits() -> None:
    driver = Driver()
    driver.hello()
    driver.ready(credits=2)
    for seq in range(3):
        driver.front(job(seq))
    assert driver.broker.load().in_flight == 2
    assert driver.answer(1)[-1] == e.Send("back", WORKER, worker_job(job(2), 3))


def test_least_loaded_worker_by_audio_gets_the_job(driver: Driver) -> None:
    driver.ready(OTHER_WORKER)
    long, short, next_ = job(0, audio_ms=5_000), job(1, audio_ms=100), job(2, audio_ms=100)
    assert driver.front(long) == [e.Send("back", WORKER, worker_job(long, 1))]
    assert driver.front(short) == [e.Send("back", OTHER_WORKER, worker_job(short, 2))]
    assert driver.front(next_) == [e.Send("back", OTHER_WORKER, worker_job(next_, 3))]


def test_jobs_are_divided_by_expected_time() -> None:
    """The other worker takes three times as long."""
    driver = Driver()
    driver.hello()
    driver.ready(credits=8, cost=m.Cost(utterance_s=0.5))
    driver.ready(OTHER_WORKER, credits=8, cost=m.Cost(utterance_s=1.5))
    sent = [action for seq in range(8) for action in driver.front(job(seq))]
    to = [
        action.identity for action in sent if isinstance(action, e.Send) and action.side == "back"
    ]
    assert to.count(WORKER) == 6 and to.count(OTHER_WORKER) == 2


def test_silent_worker_loses_its_jobs_to_others(driver: Driver) -> None:
    driver.front(job())
    driver.ready(OTHER_WORKER)
    assert driver.tick(5.0, alive=(GATEWAY, OTHER_WORKER)) == []
    actions = driver.tick(0.5, alive=(GATEWAY, OTHER_WORKER))
    retry = e.Send("back", OTHER_WORKER, worker_job(job(), 1, attempt=2))
    assert actions == [e.Count("worker_lease_ended"), retry]
    assert driver.answer(1) == [e.Count("unknown_worker"), e.Send("back", WORKER, WELCOME)]
    driver.ready()
    assert driver.answer(1) == [e.Count("stale_result")]
    answer = driver.answer(1, OTHER_WORKER, attempt=2)[0]
    assert answer == e.Send(
        "front", GATEWAY, result(job(), worker_id="worker-2", attempt=2, queue_ms=5_500)
    )


def test_a_worker_that_registers_again_loses_its_jobs(driver: Driver) -> None:
    driver.front(job())
    retry = e.Send("back", WORKER, worker_job(job(), 1, attempt=2))
    assert driver.ready() == [e.Count("worker_registered_again"), retry]


def test_a_job_is_not_blamed_for_a_worker_that_registers_again(driver: Driver) -> None:
    driver.bye()
    workers = [f"worker-{number}".encode() for number in range(limit.ATTEMPTS_MAX)]
    driver.ready(workers[0])
    driver.front(job())
    for identity in workers[1:]:
        driver.ready(identity)
        driver.tick(DEFAULTS.lease_s + 1, alive=(GATEWAY, identity))
    # All other attempts are lost, and count.
    retry = e.Send("back", workers[-1], worker_job(job(), 1, attempt=limit.ATTEMPTS_MAX + 1))
    assert driver.ready(workers[-1]) == [e.Count("worker_registered_again"), retry]


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_job_is_not_blamed_for_the_lost_connections_of_a_worker_that_comes_back(
    comes_back: bool,
) -> None:
    """An identity is that of one process: had the job ended it, another one would come."""
    driver = Driver()
    driver.hello()
    driver.front(job(0))
    ended: list[m.Result] = []
    for number in range(4):
        identity = WORKER if comes_back else f"worker-{number}".encode()
        actions = driver.ready(identity)
        actions += driver.handle(e.Unsent(e.Send("back", identity, worker_job(job(9), 9))))
        ended += [
            action.message
            for action in actions
            if isinstance(action, e.Send)
            and action.side == "front"
            and isinstance(action.message, m.Result)
        ]
    if comes_back:
        driver.ready()
        assert not ended
        assert driver.answer(1, attempt=5)
    else:
        (result,) = ended
        assert result.error is not None and result.error.code == "chunk_failed"


def test_a_job_survives_any_number_of_cuts_one_after_the_other() -> None:
    """The lease of each worker that has it ends; each is back before the next one's ends."""
    driver = Driver()
    driver.hello()
    workers = (WORKER, OTHER_WORKER, b"worker-3")
    for identity in workers:
        driver.ready(identity)
    assigned = driver.front(job(0))
    for _ in range(2 * limit.ATTEMPTS_MAX):
        (holder,) = (
            action.identity
            for action in assigned
            if isinstance(action, e.Send) and action.side == "back"
        )
        others = tuple(identity for identity in workers if identity != holder)
        assigned = driver.tick(DEFAULTS.lease_s + 1, alive=(GATEWAY, *others))
        assert e.Count("worker_lease_ended") in assigned
        driver.ready(holder)
    (holder,) = (
        action.identity
        for action in assigned
        if isinstance(action, e.Send) and action.side == "back"
    )
    answered = driver.answer(1, holder, attempt=1 + 2 * limit.ATTEMPTS_MAX)
    assert any(isinstance(action, e.Send) and action.side == "front" for action in answered)


def test_an_unreachable_worker_is_lost_and_the_unsent_attempt_does_not_count(
    driver: Driver,
) -> None:
    driver.front(job(0))
    driver.front(job(1))
    driver.ready(OTHER_WORKER)
    actions = driver.handle(e.Unsent(e.Send("back", WORKER, worker_job(job(1), 2))))
    assert actions == [
        e.Count("unsent_workerjob"),
        e.Count("worker_unreachable"),
        e.Send("back", OTHER_WORKER, worker_job(job(1), 2)),
        e.Send("back", OTHER_WORKER, worker_job(job(0), 1, attempt=2)),
    ]
    assert driver.handle(e.Unsent(e.Send("back", WORKER, WELCOME))) == [e.Count("unsent_welcome")]


def test_a_draining_worker_returns_jobs_and_finishes_the_rest(driver: Driver) -> None:
    driver.front(job(0))
    driver.front(job(1))
    assert driver.bye((2, 1), (7, 1)) == [e.Count("stale_return")]
    assert driver.broker.load().workers == 0
    assert driver.ready(OTHER_WORKER) == [e.Send("back", OTHER_WORKER, worker_job(job(1), 2))]
    answer = result(job(0))
    assert driver.answer(1) == [e.Send("front", GATEWAY, answer), published(answer)]
    assert driver.broker.scheduler.models.worker(WORKER) is None
    assert driver.bye() == [e.Count("unknown_worker")]


def test_bye_of_another_epoch_returns_nothing(driver: Driver) -> None:
    driver.front(job(0))
    assert driver.bye((1, 1), broker_epoch="before") == []
    assert driver.broker.load().in_flight == 1


def replace_worker(driver: Driver, ended: bytes, started: bytes) -> list[e.Action]:
    """A worker ends, which shows when the next message can't be sent; another one is started."""
    actions = driver.handle(e.Unsent(e.Send("back", ended, worker_job(job(9), 9))))
    return actions[2:] + driver.ready(started)


def test_third_lost_attempt_ends_the_job(driver: Driver) -> None:
    driver.front(job())
    for attempt, (ended, started) in enumerate([(WORKER, b"worker-b"), (b"worker-b", b"worker-c")]):
        again = e.Send("back", started, worker_job(job(), 1, attempt=attempt + 2))
        assert replace_worker(driver, ended, started) == [again]
    answer = failure(job(), answers.CHUNK_FAILED, attempt=3)
    ended_with_it = driver.handle(e.Unsent(e.Send("back", b"worker-c", worker_job(job(9), 9))))
    assert e.Send("front", GATEWAY, answer) in ended_with_it and published(answer) in ended_with_it


def test_the_last_attempt_runs_exclusively(driver: Driver) -> None:
    """Jobs that were lost together with a poison job twice are not lost with it again."""
    driver.front(job(0))
    driver.front(job(1))
    replace_worker(driver, WORKER, OTHER_WORKER)
    replace_worker(driver, OTHER_WORKER, b"worker-c")
    driver.front(job(2))
    assert driver.broker.load().in_flight == 1
    then = e.Send("back", b"worker-c", worker_job(job(1), 2, attempt=3))
    assert driver.answer(1, b"worker-c", attempt=3)[-1] == then
    then = e.Send("back", b"worker-c", worker_job(job(2), 3))
    assert driver.answer(2, b"worker-c", attempt=3)[-1] == then


def test_a_worker_is_reserved_for_a_last_attempt(driver: Driver) -> None:
    driver.front(job(0))
    replace_worker(driver, WORKER, b"worker-b")
    driver.ready(OTHER_WORKER)
    driver.front(job(1, audio_ms=100))
    driver.handle(e.Unsent(e.Send("back", b"worker-b", worker_job(job(9), 9))))
    # The only worker holds job 2 and is reserved until it is idle.
    assert driver.front(job(2)) == []
    assert driver.answer(2, OTHER_WORKER)[-1] == e.Send(
        "back", OTHER_WORKER, worker_job(job(0), 1, attempt=3)
    )


def test_jobs_that_timed_out_together_are_retried_one_by_one(driver: Driver) -> None:
    """One of them may hang workers; the others must not wait behind it."""
    for seq in range(3):
        driver.front(job(seq))
    driver.ready(OTHER_WORKER)
    everyone = (*BOTH, OTHER_WORKER)
    retries = [
        a for a in driver.tick(30.5, alive=everyone) if isinstance(a, e.Send) and a.side == "back"
    ]
    assert retries == [e.Send("back", OTHER_WORKER, worker_job(job(0), 1, attempt=2))]
    for seq, job_id in ((1, 2), (2, 3)):
        following = driver.answer(job_id - 1, OTHER_WORKER, attempt=2)[-1]
        assert following == e.Send("back", OTHER_WORKER, worker_job(job(seq), job_id, attempt=2))


def test_an_overdue_attempt_is_reassigned_and_its_worker_gets_no_jobs(driver: Driver) -> None:
    driver.front(job(0))
    driver.tick(29.0, alive=BOTH)
    driver.ready(OTHER_WORKER)
    actions = driver.tick(1.5, alive=(*BOTH, OTHER_WORKER))
    retry = e.Send("back", OTHER_WORKER, worker_job(job(0), 1, attempt=2))
    assert actions == [e.Count("attempt_deadline"), retry]
    for seq in range(1, 9):
        driver.front(job(seq))
    assert driver.broker.load().in_flight == 1
    driver.answer(1, OTHER_WORKER, attempt=2)
    assert driver.broker.load().in_flight == 4
    driver.now_s += 1.0
    driver.beat(busy_ms=31_500)
    assert driver.broker.load().in_flight == 4
    # The current batch began after the attempt was taken away: the worker makes progress.
    driver.beat(busy_ms=10)
    assert driver.broker.load().in_flight == 8


def test_honest_work_of_a_slow_worker_is_not_taken_away() -> None:
    """Eight seconds for each of four jobs: more than BROKER_ATTEMPT_DEADLINE_S in all."""
    driver = Driver()
    driver.hello()
    driver.ready(cost=m.Cost(utterance_s=8.0))
    for seq in range(4):
        driver.front(job(seq))
    for seq in range(4):
        assert driver.tick(8.5, alive=BOTH) == []
        assert len(driver.answer(seq + 1)) == 2


def test_a_worker_that_is_slower_than_it_reported_loses_its_job_in_the_end() -> None:
    driver = Driver()
    driver.hello()
    driver.ready(cost=m.Cost(utterance_s=8.0))
    driver.front(job())
    late_s = 8.0 * limit.ATTEMPT_TIMES_EXPECTED
    assert driver.tick(late_s - 1.0, alive=BOTH) == []
    assert driver.tick(1.5, alive=BOTH) == [e.Count("attempt_deadline")]


def test_late_result_of_an_overdue_attempt_frees_its_worker(driver: Driver) -> None:
    driver.front(job(0))
    driver.tick(30.5, alive=BOTH)
    retry = e.Send("back", WORKER, worker_job(job(0), 1, attempt=2))
    assert driver.answer(1) == [e.Count("stale_result"), retry]


def test_result_of_another_epoch_or_attempt_or_twice_is_stale(driver: Driver) -> None:
    driver.front(job(0))
    assert driver.answer(1, broker_epoch="before") == [e.Count("stale_result")]
    driver.ready()
    assert driver.answer(1, attempt=1) == [e.Count("stale_result")]
    assert len(driver.answer(1, attempt=2)) == 2
    assert driver.answer(1, attempt=2) == [e.Count("stale_result")]


# ------------------------------------------------------------------------------ streamed partials


def streamed(session_id: str, end_ms: int = 600, seq: int = 0) -> m.Job:
    return job(seq, session_id=session_id, partial=True, audio_ms=end_ms, end_ms=end_ms)


@pytest.fixture
def streaming() -> Driver:
    """Two workers with streaming models."""
    driver = Driver()
    driver.hello()
    for worker in (WORKER, OTHER_WORKER):
        driver.ready(worker, credits=2, streamed_credits=2)
    return driver


def workers_of(actions: list[e.Action]) -> list[bytes]:
    return [
        action.identity
        for action in actions
        if isinstance(action, e.Send) and action.side == "back"
    ]


def test_partial_jobs_of_an_utterance_go_to_the_worker_with_its_state(streaming: Driver) -> None:
    (first,) = workers_of(streaming.front(streamed("a")))
    (other,) = workers_of(streaming.front(streamed("b")))
    assert {first, other} == {WORKER, OTHER_WORKER}
    streaming.answer(1, first)
    streaming.answer(2, other)
    for number, end_ms in enumerate((1_200, 1_800, 2_400)):
        assert workers_of(streaming.front(streamed("b", end_ms))) == [other]
        assert workers_of(streaming.front(streamed("a", end_ms))) == [first]
        streaming.answer(3 + 2 * number, other)
        streaming.answer(4 + 2 * number, first)


def test_the_next_utterance_may_go_to_any_worker(streaming: Driver) -> None:
    (first,) = workers_of(streaming.front(streamed("a")))
    streaming.answer(1, first)
    (busy,) = workers_of(streaming.front(job(0, session_id="b", audio_ms=5_000)))
    (least_loaded,) = {WORKER, OTHER_WORKER} - {busy}
    assert workers_of(streaming.front(streamed("a", 20_600, seq=1))) == [least_loaded]


def test_another_worker_continues_when_the_one_with_the_state_has_no_credit(
    streaming: Driver,
) -> None:
    (first,) = workers_of(streaming.front(streamed("a")))
    (other,) = workers_of(streaming.front(streamed("b")))
    streaming.answer(1, first)
    for name in ("c", "d"):
        streaming.front(streamed(name))
    streaming.front(streamed("e"))
    assert workers_of(streaming.front(streamed("a", 1_200))) == [], "no credit at all"
    assert workers_of(streaming.answer(2, other)) == [other]


def test_another_worker_continues_when_the_one_with_the_state_is_lost(streaming: Driver) -> None:
    (first,) = workers_of(streaming.front(streamed("a")))
    streaming.answer(1, first)
    streaming.bye(identity=first)
    (other,) = {WORKER, OTHER_WORKER} - {first}
    assert workers_of(streaming.front(streamed("a", 1_200))) == [other]


def test_streamed_partials_leave_all_credits_to_finals(streaming: Driver) -> None:
    for name in ("a", "b", "c", "d"):
        assert len(workers_of(streaming.front(streamed(name)))) == 1
    assert workers_of(streaming.front(streamed("e"))) == []
    finals = [workers_of(streaming.front(job(0, session_id=f"final {n}"))) for n in range(5)]
    assert [len(sent) for sent in finals] == [1, 1, 1, 1, 0]


def test_streamed_partials_wait_for_finals(streaming: Driver) -> None:
    for number in range(5):
        streaming.front(job(0, session_id=f"final {number}"))
    assert workers_of(streaming.front(streamed("a"))) == []
    assert len(workers_of(streaming.answer(1))) == 2, "the last final, and the partial"


def test_streamed_partials_have_a_cost_of_their_own(streaming: Driver) -> None:
    """It neither counts as work that finals wait for nor as their speed."""
    before = streaming.broker.load()
    streaming.front(streamed("a", 15_000))
    (model,) = streaming.broker.load().served
    assert model.est_wait_ms == 0
    busy = STREAMED_S * math.log(2) / limit.ARRIVALS_HALF_LIFE_S
    assert model.partials_busy == pytest.approx(busy)
    streaming.now_s += 5.0
    streaming.answer(1)
    assert streaming.broker.load().throughput_rtfx == before.throughput_rtfx


def test_streamed_partials_keep_to_the_budget(streaming: Driver) -> None:
    (model,) = streaming.broker.scheduler.models
    model.partials.spend(limit.PARTIAL_BURST_S)
    assert workers_of(streaming.front(streamed("a"))) == []


def test_without_a_streaming_model_everywhere_partials_take_credits() -> None:
    """As in a rolling upgrade."""
    driver = Driver()
    driver.hello()
    driver.ready(WORKER, credits=4, streamed_credits=2)
    driver.ready(OTHER_WORKER, credits=4)
    assert len(workers_of(driver.front(streamed("a")))) == 1
    assert len(workers_of(driver.front(streamed("b")))) == 1
    assert workers_of(driver.front(streamed("c"))) == [], "a quarter of eight credits"


def test_a_worker_gets_no_more_streamed_jobs_than_its_credits_in_a_rolling_upgrade() -> None:
    """Its other credits would be enough."""
    driver = Driver()
    driver.hello()
    driver.ready(WORKER, credits=16, streamed_credits=1)
    driver.ready(OTHER_WORKER, credits=16)
    sent = [identity for name in "abcdef" for identity in workers_of(driver.front(streamed(name)))]
    assert sent.count(WORKER) == 1


# --------------------------------------------------------------------------- links to workers


def run_on_link(bytes_per_s: float, *, held_ms: int | None) -> m.Load:
    """Live jobs of one second, then of ten, reach two workers over one link."""
    driver = Driver()
    driver.hello()
    for worker in (WORKER, OTHER_WORKER):
        driver.ready(worker)
    free_s, results = 0.0, []
    for tick in range(1_200):
        driver.now_s += 0.05
        actions = driver.handle(e.Tick())
        if tick % 100 == 0:
            audio_ms = 1_000 if tick < 200 else 10_000
            actions += driver.front(job(tick, audio_ms=audio_ms))
            actions += driver.front(job(tick, audio_ms=audio_ms, session_id="other"))
        for worker in (WORKER, OTHER_WORKER):
            actions += driver.beat(worker)
        for action in actions:
            if (
                isinstance(action, e.Send)
                and action.side == "back"
                and isinstance(action.message, m.WorkerJob)
            ):
                free_s = max(free_s, driver.now_s) + len(action.message.pcm) / bytes_per_s
                results.append((free_s + (held_ms or 0) / 1000, action))
        for due in [due for due in results if due[0] <= driver.now_s]:
            results.remove(due)
            driver.now_s, later_s = due[0], driver.now_s
            assert isinstance(due[1].message, m.WorkerJob)
            driver.answer(due[1].message.job_id, due[1].identity, held_ms=held_ms)
            driver.now_s = later_s
    driver.handle(e.Tick())
    return driver.broker.load()


def test_the_capacity_of_links_to_workers_is_measured_while_they_are_full() -> None:
    load = run_on_link(240_000.0, held_ms=500)
    assert load.workers_link_rate == pytest.approx(240_000.0, rel=0.06)
    assert load.workers_sent_rate <= load.workers_sent_peak_rate
    assert 64_000.0 < load.workers_sent_peak_rate < 5 * 64_000.0


def test_slow_workers_are_not_a_full_link_nor_are_workers_without_held_ms() -> None:
    assert run_on_link(100e6, held_ms=2_000).workers_link_rate == 0.0
    assert run_on_link(240_000.0, held_ms=None).workers_link_rate == 0.0
