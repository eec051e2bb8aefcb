from __future__ import annotations

import math

import pytest

from broker.arrivals import ArrivalRate
from broker.limits import ARRIVALS_HALF_LIFE_S, Limits
from tests.broker.driving import GATEWAY, OTHER_GATEWAY, Driver, job
from wire import messages as m


def test_a_steady_stream_is_measured() -> None:
    rate = ArrivalRate()
    assert rate.per_s == 0
    for tick in range(1_000):
        rate.advance(tick * 0.05)
        rate.note(2_000)
    assert rate.per_s == pytest.approx(2 / 0.05, rel=0.02)


def test_what_ended_is_forgotten() -> None:
    rate = ArrivalRate()
    rate.advance(0.0)
    rate.note(10_000)
    before = rate.per_s
    rate.advance(ARRIVALS_HALF_LIFE_S)
    assert rate.per_s == pytest.approx(before / 2)


def test_live_audio_that_arrives_is_measured_and_what_gateways_expect_summed() -> None:
    driver = Driver()
    driver.hello()
    driver.hello(OTHER_GATEWAY)
    for identity, expected_x in ((GATEWAY, 3.0), (OTHER_GATEWAY, 4.5)):
        hello = m.Hello(gateway_id=identity.decode(), expected_x=expected_x)
        driver.front(hello, identity)
    driver.front(job(0, audio_ms=5_000))
    driver.front(job(0, audio_ms=5_000))  # Sent again: it came only once.
    driver.front(job(1, audio_ms=5_000, partial=True))
    driver.front(job(2, audio_ms=5_000, lane="bulk"))
    load = driver.broker.load()
    assert load.arriving_x == pytest.approx(5 * math.log(2) / ARRIVALS_HALF_LIFE_S)
    assert load.expected_x == 7.5
    driver.tick(Limits().lease_s + 1, alive=(GATEWAY,))
    assert driver.broker.load().expected_x == 0.0


def test_what_stands_behind_a_live_job_is_no_wait_for_it(driver: Driver) -> None:
    for seq in range(4):
        driver.front(job(seq))
    before = driver.broker.load()
    for seq in range(6):
        driver.front(job(seq, session_id="b", lane="bulk"))
    load = driver.broker.load()
    assert load.queued_audio_ms == before.queued_audio_ms + 6_000
    assert load.est_wait_ms == before.est_wait_ms > 0
