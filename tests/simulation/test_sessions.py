"""Whole sessions over hundreds of schedules hold; the checkers catch planted bugs."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.planted_sessions import SESSION_PLANTS
from tests.simulation.schedule import Outcome, ScheduleError
from tests.simulation.sessions import simulate_sessions

SEEDS = range(1_200)
SEEDS_PER_TASK = 50
CLAIMED_FOR_NOBODY = (300591, 301785, 302184, 363824)
"""Answered, not stored, and lost, because a gateway claimed a session whose client was gone."""
REGRESSION_SEEDS = (
    356352,  # The oracle excused a broker that was stopped twice for a deadline that it had seen,
    362847,  # and took back attempts for a worker's Bye after the end of its lease.
    704748,  # A row of before a session began anew stood for one that was lost on its way.
    2024844,  # A session was claimed and let go of, but its claim lost, and its client gone.
    1251,  # At SIGTERM a session that was finished, and whose client was gone, had no end.
    3016563,  # A segment that had failed was recognised anew, and had a text in the final result,
    4076982,  # and the other way round.
    3010368,  # A session began anew for a client that was gone, and its stored words went.
    3033088,  # It was claimed for nobody, and its gateway was not told.
    4057377,  # The end told one worker's spelling of a segment, and its row had another's.
    4085999,  # A session began at a gateway that had interrupted all others, and had no end.
    306400,
    308011,
    612488,
    *CLAIMED_FOR_NOBODY,
)
"""Seeds beyond SEEDS that once failed."""
SEEDS_TO_CATCH_A_BUG = 200

REACHED = (
    "abandoned",
    "completed",
    "duplicate_job",
    "gateway_lease_ended",
    "interrupted",
    "no_subscriber",
    "overloaded",
    "stale_rows",
    "superseded_generation",
    "taken_over",
    "worker_lease_ended",
)
"""What the schedules together must have gone through, or they test less than they say."""


def _simulate_many(first: int, end: int) -> list[Outcome]:
    return [simulate_sessions(seed) for seed in range(first, end)]


def test_schedules_hold() -> None:
    firsts = range(SEEDS.start, SEEDS.stop, SEEDS_PER_TASK)
    ends = [min(first + SEEDS_PER_TASK, SEEDS.stop) for first in firsts]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=context) as pool:
        outcomes = [o for batch in pool.map(_simulate_many, firsts, ends) for o in batch]
        outcomes += pool.map(simulate_sessions, REGRESSION_SEEDS)
    assert [outcome.seed for outcome in outcomes] == [*SEEDS, *REGRESSION_SEEDS]
    # Were it more, the checker would look away too often.
    assert sum(outcome.counts["claimed_for_nobody"] for outcome in outcomes[: len(SEEDS)]) <= 2
    of_seed = {outcome.seed: outcome for outcome in outcomes}
    assert all(of_seed[seed].counts["claimed_for_nobody"] for seed in CLAIMED_FOR_NOBODY)
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    assert [reason for reason in REACHED if not counts[reason]] == []
    assert sum(outcome.texts for outcome in outcomes) > 3 * len(SEEDS)
    assert sum(outcome.failures for outcome in outcomes) > 0


def test_a_seed_is_a_schedule() -> None:
    assert simulate_sessions(15) == simulate_sessions(15)


@pytest.mark.parametrize("bug", sorted(SESSION_PLANTS))
def test_planted_bug_is_caught(bug: str) -> None:
    with pytest.raises(ScheduleError, match=r"(?s)seed \d+\noptions .*invariant.*replay: python"):
        for seed in range(SEEDS_TO_CATCH_A_BUG):
            simulate_sessions(seed, SESSION_PLANTS[bug])
