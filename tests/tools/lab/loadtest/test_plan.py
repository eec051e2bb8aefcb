from __future__ import annotations

import itertools
import statistics
from dataclasses import replace

import pytest

from tools.lab.loadtest.plan import Plan, gateway_url, seconds
from tools.lab.loadtest.user import Behaviour

BEHAVIOUR = Behaviour(
    url="ws://h:1/ws/asr",
    mode="auto",
    binary=True,
    partials=False,
    resume=True,
    speed=1.0,
    patience_s=1.0,
    final_timeout_s=1.0,
)
PLAN = Plan(BEHAVIOUR, sessions=10, duration_s=5, chunk_ms=200, ramp_s=5, rate_per_s=0, seed=1)


@pytest.mark.parametrize(
    "text, expected", [("60", 60), ("60s", 60), ("1m30s", 90), ("1h", 3600), ("0.5m", 30)]
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "s", "1d", "-1s", "1s1m"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


def test_sessions_begin_evenly_within_the_ramp() -> None:
    assert PLAN.beginnings_s() == [0.5 * number for number in range(10)]


def test_arrivals_at_a_rate_are_random_and_the_same_for_a_seed() -> None:
    plan = replace(PLAN, sessions=4_000, rate_per_s=20.0)
    times = plan.beginnings_s()
    assert times == plan.beginnings_s() == sorted(times)
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(1 / 20, rel=0.1)
    assert statistics.stdev(gaps) == pytest.approx(1 / 20, rel=0.1)


def test_processes_share_the_sessions_and_every_text_is_right() -> None:
    shares = [PLAN.share(process, 3) for process in range(3)]
    assert [len(share) for share in shares] == [4, 3, 3]
    texts = [make().text for share in shares for _, _, make in share]
    assert sorted(texts) == sorted(make().text for _, _, make in PLAN.share(0, 1))
    assert len(set(texts)) == 10
    assert len({session_id for share in shares for session_id, _, _ in share}) == 10


@pytest.mark.parametrize(
    "address, url",
    [
        ("h:8080", "ws://h:8080/ws/asr"),
        ("ws://10.0.0.1:1/ws/asr", "ws://10.0.0.1:1/ws/asr"),
        ("http://[::1]:1/", "ws://[::1]:1/ws/asr"),
    ],
)
def test_addresses(address: str, url: str) -> None:
    assert gateway_url(address) == url


@pytest.mark.parametrize(
    "address, message",
    [("", "not the address"), ("h:x", "not the address"), ("wss://h:1/ws/asr", "no TLS")],
)
def test_invalid_addresses(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gateway_url(address)
