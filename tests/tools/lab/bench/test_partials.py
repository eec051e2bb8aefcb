"""Figures of the sessions with and without partial results."""

from __future__ import annotations

import math

from tools.lab.bench.partials import final_p95_ms, first_partial_ms
from tools.lab.loadtest.user import Outcome


def outcome(*segments_ms: float, first_partial_ms: float = math.inf) -> Outcome:
    found = Outcome("session", "text", first_partial_ms=first_partial_ms)
    found.segment_ms = [(0.0, ms) for ms in segments_ms]
    return found


def test_the_latency_of_finals_is_over_all_sessions() -> None:
    assert final_p95_ms([outcome(*range(1, 11)), outcome(*range(11, 21))]) == 19


def test_the_latest_first_partial_counts_and_none_is_never() -> None:
    assert (
        first_partial_ms([outcome(first_partial_ms=900), outcome(first_partial_ms=1_200)]) == 1200
    )
    assert first_partial_ms([outcome(first_partial_ms=900), outcome()]) == math.inf
