from __future__ import annotations

import math

import pytest

from broker.arrivals import ArrivalRate
from broker.limits import (
    ARRIVALS_HALF_LIFE_S,
    RATED_SESSIONS_MAX,
    UTTERANCE_S_MAX,
)
from tests.broker.driving import DEFAULTS, GATEWAY, OTHER_GATEWAY, Driver, job
from wire import messages as m


def test_a_steady_stream_is_measured() -> None:
    rate = ArrivalRate()
    assert rate.per_s == 0
    for tick in range(1_000):
        rate.advance(tick * 0.05)
        rate.add(f"session {tick}", 2_000, tick * 0.05)
    assert rate.per_s == pytest.approx(2 / 0.05, rel=0.02)


def test_the_rate_decays_with_its_half_life() -> None:
    rate = ArrivalRate()
    rate.advance(0.0)
    rate.add("a", 10_000, 0.0)
    before = rate.per_s
    rate.advance(ARRIVALS_HALF_LIFE_S)
    assert rate.per_s == pytest.approx(before / 2)


def per_s(audio_s: float, every_s: float, sessions: int = 1) -> float:
    """The rate of sessions that each send ``audio_s`` at each interval, for a minute."""
    rate = ArrivalRate()
    for turn in range(round(60 / every_s)):
        rate.advance(turn * every_s)
        for n in range(sessions):
            rate.add(f"session {n}", round(1_000 * audio_s), turn * every_s)
    return rate.per_s


def test_sessions_in_real_time_count_in_full() -> None:
    assert per_s(2.0, every_s=2.0, sessions=30) == pytest.approx(30, rel=0.3)
    assert per_s(1.0, every_s=4.0, sessions=200) == pytest.approx(50, rel=0.6)


def test_a_session_faster_than_real_time_counts_as_one_that_speaks() -> None:
    assert per_s(5.0, every_s=0.02) == pytest.approx(1, rel=0.1)
    assert per_s(15.0, every_s=0.05, sessions=10) == pytest.approx(10, rel=0.1)


def test_the_first_utterance_counts_in_full_up_to_the_longest() -> None:
    rate = ArrivalRate()
    rate.advance(0.0)
    for _ in range(100):
        rate.add("a", 60_000, 0.0)
    assert rate.per_s == pytest.approx(UTTERANCE_S_MAX * math.log(2) / ARRIVALS_HALF_LIFE_S)


def test_beyond_the_limit_the_session_silent_for_longest_is_forgotten() -> None:
    rate = ArrivalRate()
    rate.advance(0.0)
    for n in range(RATED_SESSIONS_MAX + 1):
        rate.add(f"session {n}", 20_000, 0.0)
    before = rate.per_s
    rate.add(f"session {RATED_SESSIONS_MAX}", 20_000, 0.0)
    assert rate.per_s == before
    rate.add("session 0", 20_000, 0.0)
    assert rate.per_s > before


def test_arriving_live_audio_is_measured_and_expected_audio_summed() -> None:
    driver = Driver()
    driver.hello()
    driver.hello(OTHER_GATEWAY)
    for identity, expected_audio_rate in ((GATEWAY, 3.0), (OTHER_GATEWAY, 4.5)):
        hello = m.Hello(gateway_id=identity.decode(), expected_audio_rate=expected_audio_rate)
        driver.front(hello, identity)
    driver.front(job(0, audio_ms=5_000))
    driver.front(job(0, audio_ms=5_000))  # Sent again: it came only once.
    driver.front(job(1, audio_ms=5_000, partial=True))
    driver.front(job(2, audio_ms=5_000, lane="bulk"))
    load = driver.broker.load()
    assert load.arriving_audio_rate == pytest.approx(5 * math.log(2) / ARRIVALS_HALF_LIFE_S)
    assert load.expected_audio_rate == 7.5
    driver.ready()
    # Sent without names, it is that of the only model.
    (model,) = driver.broker.load().served
    assert model.expected_audio_rate == 7.5
    driver.tick(DEFAULTS.lease_s + 1, alive=(GATEWAY,))
    assert driver.broker.load().expected_audio_rate == 0.0


def test_bulk_jobs_do_not_count_in_the_wait_of_a_live_job(driver: Driver) -> None:
    for seq in range(4):
        driver.front(job(seq))
    before = driver.broker.load()
    for seq in range(6):
        driver.front(job(seq, session_id="b", lane="bulk"))
    load = driver.broker.load()
    assert load.queued_audio_ms == before.queued_audio_ms + 6_000
    assert load.est_wait_ms == before.est_wait_ms > 0
