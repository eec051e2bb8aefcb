"""When refused clients try again: one after the other."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from gateway.admission.policy import DRAINING, Refusal
from gateway.admission.retries import RETRY_AFTER_S_MAX, Retries

FULL = Refusal(code="overloaded", message="full", retry_after_s=2, retries_per_s=50)


def test_a_single_client_waits_no_longer_than_its_refusal_says() -> None:
    retries = Retries()
    assert [retries.spread(FULL, now_s).retry_after_s for now_s in (0.0, 10.0, 20.0)] == [2, 2, 2]


def test_a_crowd_is_spread_over_time() -> None:
    retries = Retries()
    seconds = Counter(retries.spread(FULL, 0.0).retry_after_s for _ in range(500))
    assert seconds == {2: 1, **dict.fromkeys(range(3, 12), 50), 12: 49}


def test_the_next_crowd_follows_the_last_until_its_time_is_over() -> None:
    retries = Retries()
    for _ in range(501):
        retries.spread(FULL, 0.0)
    assert retries.spread(FULL, 1.0).retry_after_s == 12
    assert retries.spread(FULL, 30.0).retry_after_s == 2


def test_the_delay_is_limited() -> None:
    retries = Retries()
    assert {retries.spread(FULL, 0.0).retry_after_s for _ in range(5_000)} == set(
        range(2, RETRY_AFTER_S_MAX + 1)
    )
    longer = replace(FULL, retry_after_s=45)
    assert retries.spread(longer, 0.0).retry_after_s == 45


def test_a_refusal_of_one_client_is_not_delayed() -> None:
    retries = Retries()
    quota = Refusal(code="too_many_requests", message="", retry_after_s=1, status=429)
    assert {retries.spread(quota, 0.0) for _ in range(100)} == {quota}
    assert retries.spread(DRAINING, 0.0) is DRAINING
