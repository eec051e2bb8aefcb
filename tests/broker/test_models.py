"""Several models: each has its own queue, workers and figures."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from broker import answers
from broker import events as e
from broker import limits as limit
from broker.models import common_abilities
from tests.broker.driving import (
    DEFAULTS,
    GATEWAY,
    LONG_MS,
    OTHER_WORKER,
    WELCOME,
    WORKER,
    Driver,
    failure,
    job,
    worker_job,
)
from wire.messages import Abilities, Cost, Job, Load, Ready, ServedModel, WorkerResult

ZH, EN = WORKER, OTHER_WORKER


@pytest.fixture
def two() -> Driver:
    """A worker of each of two models."""
    driver = Driver()
    driver.hello()
    driver.ready(ZH, served_name="zh", credits=1)
    driver.ready(EN, served_name="en", credits=1)
    return driver


def served(load: Load) -> dict[str, ServedModel]:
    return {model.name: model for model in load.served}


def test_a_job_goes_to_a_worker_of_its_model(two: Driver) -> None:
    for seq, (name, identity) in enumerate([("zh", ZH), ("en", EN), ("en", EN), ("zh", ZH)]):
        asked = job(seq, session_id=name, model=name)
        assert two.front(asked) == [e.Send("back", identity, worker_job(asked, seq + 1))]
        two.answer(seq + 1, identity)


def test_with_one_model_a_job_costs_no_time_for_each_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = Driver()
    driver.hello()
    driver.ready()

    def wait_s(*_: object) -> float:
        raise AssertionError("the wait of all workers was computed")

    monkeypatch.setattr("broker.workers.WorkerPool.wait_s", wait_s)
    for seq in range(3):  # Two of them wait.
        driver.front(job(seq))


def test_a_worker_without_a_served_name_serves_its_model() -> None:
    """A worker of an earlier release."""
    driver = Driver()
    driver.hello()
    driver.ready()
    asked = job(model="demo")
    assert driver.front(asked) == [e.Send("back", WORKER, worker_job(asked, 1))]


def test_jobs_of_a_model_without_workers_wait_and_delay_no_others(two: Driver) -> None:
    two.bye(identity=ZH)
    waiting = job(0, session_id="a", model="zh", deadline_ms=20_000)
    assert two.front(waiting) == []
    other = job(0, session_id="b", model="en")
    assert two.front(other) == [e.Send("back", EN, worker_job(other, 2))]
    answer = failure(waiting, answers.DEADLINE, attempt=0)
    assert two.tick(19.0, alive=(GATEWAY, EN)) == []
    assert e.Send("front", GATEWAY, answer) in two.tick(2.0, alive=(GATEWAY, EN))


def test_jobs_wait_for_the_next_worker_of_their_model(two: Driver) -> None:
    two.bye(identity=ZH)
    waiting = job(model="zh")
    two.front(waiting)
    assert two.ready(b"worker-3", served_name="en") == []
    actions = two.ready(b"worker-4", served_name="zh")
    assert actions == [e.Send("back", b"worker-4", worker_job(waiting, 1))]


def test_a_lost_job_is_retried_by_its_model_only(two: Driver) -> None:
    asked = job(model="zh")
    two.front(asked)
    actions = two.tick(6.0, alive=(GATEWAY, EN))
    assert actions == [e.Count("worker_lease_ended")]
    retry = e.Send("back", b"worker-3", worker_job(asked, 1, attempt=2))
    assert two.ready(b"worker-3", served_name="zh") == [retry]


def test_a_job_for_any_model_goes_where_it_waits_least(two: Driver) -> None:
    first, second = job(0), job(1)
    (sent,) = two.front(first)
    assert isinstance(sent, e.Send) and sent.side == "back"
    (other,) = {ZH, EN} - {sent.identity}
    assert two.front(second) == [e.Send("back", other, worker_job(second, 2))]


def test_jobs_for_any_model_do_not_wait_for_one_without_workers(two: Driver) -> None:
    two.bye(identity=EN)
    running, waiting, named = job(0), job(1), job(2, session_id="named", model="zh")
    two.front(running)
    two.front(waiting)
    two.front(named)
    two.bye((1, 1), identity=ZH)
    # The first worker, of whatever model, gets those for any.
    assert two.ready(b"worker-3", served_name="fr") == [
        e.Send("back", b"worker-3", worker_job(running, 1)),
        e.Send("back", b"worker-3", worker_job(waiting, 2)),
    ]


def test_jobs_for_any_model_do_not_wait_for_a_worker_that_drains() -> None:
    driver = Driver()
    driver.hello()
    driver.ready(ZH, served_name="zh", credits=1)
    running, waiting = job(0), job(1)
    driver.front(running)
    driver.bye(identity=ZH)
    assert driver.front(waiting) == []
    # The one that drains still has a job.
    assert driver.ready(b"worker-3", served_name="zh") == [
        e.Send("back", b"worker-3", worker_job(waiting, 2))
    ]


def test_the_queue_is_shared_equally() -> None:
    driver = Driver(replace(DEFAULTS, queue_jobs_max=4))
    driver.hello()
    driver.ready(EN, served_name="en", credits=1)
    refused = e.Count("overloaded")
    for seq in range(2):
        driver.front(job(seq, session_id="a", model="zh"))
    assert refused in driver.front(job(2, session_id="a", model="zh"))
    for seq in range(3):  # One is assigned.
        assert refused not in driver.front(job(seq, session_id="b", model="en"))
    assert refused in driver.front(job(3, session_id="b", model="en"))


def test_each_model_is_reported(two: Driver) -> None:
    two.ready(b"worker-3", served_name="en")
    two.front(job(0, session_id="a", model="zh", audio_ms=4_000))
    two.front(job(1, session_id="a", model="zh", audio_ms=2_000))
    two.handle(e.Tick())
    load = two.broker.load()
    zh, en = served(load)["zh"], served(load)["en"]
    assert [model.name for model in load.served] == ["en", "zh"]
    assert (zh.workers, zh.workers_busy, zh.queued_audio_ms) == (1, 1, 2_000)
    assert (en.workers, en.workers_busy, en.queued_audio_ms) == (2, 0, 0)
    assert zh.est_wait_ms == 300 and en.est_wait_ms == 0
    assert zh.arriving_audio_rate > 0 and en.arriving_audio_rate == 0
    assert (load.workers, load.est_wait_ms, load.models) == (3, 300, ("demo",))
    assert load.throughput_rtfx == zh.throughput_rtfx + en.throughput_rtfx


def test_a_model_is_remembered_for_a_while_without_workers(two: Driver) -> None:
    two.front(job(model="zh"))
    two.bye((1, 1), identity=ZH)
    zh = served(two.broker.load())["zh"]
    assert (zh.workers, zh.queued_audio_ms, zh.est_wait_ms) == (
        0,
        1_000,
        limit.EST_WAIT_REPORTED_MS_MAX,
    )
    assert zh.abilities == Abilities()
    # Its jobs do not count where work goes on.
    assert two.broker.load().est_wait_ms == 0
    two.tick(LONG_MS / 1000 + 1, alive=(GATEWAY, EN))
    assert "zh" in served(two.broker.load())
    two.tick(limit.MODEL_REMEMBERED_S, alive=(GATEWAY, EN))
    assert "zh" not in served(two.broker.load())


def test_models_have_a_limit(two: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "MODELS_MAX", 2)
    ready = Ready(worker_id="worker-3", credits=1, model="fr", device="cpu")
    assert two.back(ready, b"worker-3") == [e.Count("models_full")]
    assert e.Count("overloaded") in two.front(job(model="fr"))
    assert two.back(replace(ready, model="zh"), b"worker-3") == [
        e.Send("back", b"worker-3", WELCOME)
    ]


ABLE = Abilities(
    languages=("zh", "en"), hotwords="weights", word_times=True, tags=True, batch_jobs=32
)


@pytest.mark.parametrize(
    ("all_of", "expected"),
    [
        ([], Abilities()),
        ([ABLE, ABLE], ABLE),
        ([ABLE, Abilities()], Abilities()),
        (
            [ABLE, Abilities(languages=("en",), hotwords="words", tags=True, batch_jobs=8)],
            Abilities(languages=("en",), hotwords="words", tags=True, batch_jobs=8),
        ),
    ],
)
def test_a_model_has_the_abilities_common_to_all_its_workers(
    all_of: list[Abilities], expected: Abilities
) -> None:
    assert common_abilities(all_of) == expected
    backwards = common_abilities(reversed(all_of))
    assert set(backwards.languages) == set(expected.languages)
    assert replace(backwards, languages=expected.languages) == expected


# ------------------------------------------------------------------------- cost, partial jobs


def slow(cost: Cost, workers: tuple[bytes, ...] = (WORKER,), credits: int = 4) -> Driver:
    driver = Driver()
    driver.hello()
    for identity in workers:
        driver.ready(identity, cost=cost, credits=credits)
    return driver


def partial(session_id: str, audio_ms: int = 1_000) -> Job:
    return job(session_id=session_id, partial=True, audio_ms=audio_ms)


def sent(actions: list[e.Action]) -> int:
    return sum(isinstance(action, e.Send) and action.side == "back" for action in actions)


def answer_after(driver: Driver, job_id: int, took_s: float) -> None:
    driver.now_s += took_s
    driver.back(
        WorkerResult(
            broker_epoch="epoch",
            job_id=job_id,
            attempt=1,
            text="",
            error=None,
            tokens=(),
            infer_ms=round(took_s * 1000),
        )
    )


def test_the_expected_wait_counts_each_utterance() -> None:
    driver = slow(Cost(utterance_s=1.5), (WORKER, OTHER_WORKER), credits=1)
    for seq in range(4):
        driver.front(job(seq, audio_ms=100))
    driver.front(job(9, lane="bulk"))
    driver.front(partial("other"))
    load = driver.broker.load()
    assert load.est_wait_ms == 3_000
    assert load.served[0].utterance_ms == 1_500


def test_throughput_is_that_of_recent_utterances() -> None:
    driver = slow(Cost(utterance_s=0.5))
    assert driver.broker.load().throughput_rtfx == pytest.approx(6)
    for seq in range(300):
        driver.front(job(seq, audio_ms=1_000))
        answer_after(driver, seq + 1, 0.5)
    assert driver.broker.load().throughput_rtfx == pytest.approx(2, rel=0.02)


def test_a_slow_worker_gets_a_partial_only_if_it_is_idle() -> None:
    driver = slow(Cost(second_s=0.3))
    assert sent(driver.front(job())) == 1
    assert sent(driver.front(partial("a"))) == 0
    assert sent(driver.answer(1)) == 1
    assert sent(driver.front(partial("b"))) == 0
    assert sent(driver.front(job(session_id="c"))) == 1


def test_a_fast_worker_gets_partials_besides_other_jobs() -> None:
    driver = slow(Cost(second_s=0.001), credits=64)
    driver.front(job())
    assert [sent(driver.front(partial(name))) for name in "abc"] == [1, 1, 1]


def test_partials_wait_for_spare_time() -> None:
    driver = slow(Cost(second_s=limit.PARTIAL_BURST_S / 2))
    for name, job_id in (("a", 1), ("b", 2)):
        assert sent(driver.front(partial(name))) == 1
        answer_after(driver, job_id, limit.PARTIAL_BURST_S / 2)
    # The two have used up what was saved.
    assert sent(driver.front(partial("c"))) == 0
    assert driver.broker.load().served[0].partials_busy > 0
    assert sent(driver.tick(1.0, alive=(WORKER, GATEWAY))) == 1


def test_a_slow_worker_gets_bulk_jobs_one_by_one() -> None:
    """A live job that arrives next does not wait for many of them."""
    driver = slow(Cost(second_s=0.6))
    assert [sent(driver.front(job(seq, lane="bulk"))) for seq in range(3)] == [1, 0, 0]
    assert sent(driver.front(job(session_id="live"))) == 1
    answer_after(driver, 1, 0.6)
    assert driver.broker.load().in_flight == 1
    answer_after(driver, 4, 0.6)
    assert driver.broker.load().in_flight == 1
