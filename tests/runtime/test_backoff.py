from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from runtime.backoff import Backoff


@given(st.integers(0, 1 << 32), st.integers(1, 200))
def test_delays_grow_to_the_limit_and_are_never_zero(seed: int, failures: int) -> None:
    backoff = Backoff(0.2, 5.0, Random(seed))
    for failure in range(failures):
        ceiling_s = min(5.0, 0.2 * 2 ** min(failure, 30))
        assert ceiling_s / 2 <= backoff.next_delay_s() <= ceiling_s


def test_reset_restores_the_initial_delay() -> None:
    backoff = Backoff(0.2, 5.0, Random(1))
    for _ in range(10):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() <= 0.2


def test_delays_of_processes_differ() -> None:
    delays = {Backoff(1.0, 1.0, Random(seed)).next_delay_s() for seed in range(20)}
    assert len(delays) == 20
