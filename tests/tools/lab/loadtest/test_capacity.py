from __future__ import annotations

import pytest

from tools.lab.loadtest.capacity import largest_that_holds


@pytest.mark.parametrize("limit", [25, 100, 325, 499, 500, 799, 800])
def test_finds_the_largest_number_that_holds(limit: int) -> None:
    most, trials = largest_that_holds(lambda n: n <= limit, 25, 800, 25)
    assert most == limit // 25 * 25
    assert len(trials) == len(set(trials)) <= 8
    assert all(held == (sessions <= limit) for sessions, held in trials)


def test_nothing_holds() -> None:
    most, trials = largest_that_holds(lambda _: False, 25, 800, 25)
    assert most == 0
    # The smallest is tried last.
    assert trials[0] == (800, False) and trials[-1] == (25, False)


def test_one_number_to_try() -> None:
    assert largest_that_holds(lambda _: True, 25, 25, 25) == (25, [(25, True)])
    assert largest_that_holds(lambda _: False, 25, 25, 25) == (0, [(25, False)])
