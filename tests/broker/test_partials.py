from __future__ import annotations

import pytest

from broker import limits as limit
from broker.partials import PartialBudget

STEP_S = 0.05


def share_taken(budget: PartialBudget, *, work_s: float, workers: int, utilisation: float) -> float:
    """Assign partial jobs whenever possible for 200 s. Returns the share of all workers' time that
    they take."""
    assigned_s, now_s = 0.0, 0.0
    while now_s < 200:
        now_s += STEP_S
        budget.advance(now_s, workers=workers, utilisation=utilisation)
        while budget.left:
            budget.spend(work_s)
            assigned_s += work_s
    return assigned_s / (now_s * workers)


@pytest.mark.parametrize("work_s", [0.002, 0.2, 1.5])
@pytest.mark.parametrize("utilisation", [0.0, 0.6, 0.9])
def test_partial_jobs_take_a_share_of_what_final_jobs_leave(
    work_s: float, utilisation: float
) -> None:
    budget = PartialBudget()
    taken = share_taken(budget, work_s=work_s, workers=2, utilisation=utilisation)
    spare = limit.PARTIAL_SPARE_SHARE * (1 - utilisation)
    assert taken == pytest.approx(spare, abs=0.03)


def test_the_time_that_partial_jobs_take_is_measured() -> None:
    budget = PartialBudget()
    share_taken(budget, work_s=0.002, workers=2, utilisation=0.6)
    assert budget.per_s == pytest.approx(2 * limit.PARTIAL_SPARE_SHARE * 0.4, rel=0.1)


def test_without_spare_time_only_saved_time_is_spent() -> None:
    budget = PartialBudget()
    taken = share_taken(budget, work_s=0.1, workers=1, utilisation=1.5)
    assert taken * 200 <= limit.PARTIAL_BURST_S + 0.2
    assert not budget.left
    assert budget.per_s == pytest.approx(0.0, abs=0.01)


def test_what_is_saved_up_is_bounded() -> None:
    budget = PartialBudget()
    for now_s in (0.0, 10_000.0):
        budget.advance(now_s, workers=3, utilisation=0.0)
    budget.spend(3 * limit.PARTIAL_BURST_S + 0.001)
    assert not budget.left
