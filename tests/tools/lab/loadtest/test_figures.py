from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tools.lab.loadtest.figures import (
    Targets,
    difference,
    latency,
    most_at_once,
    percentile,
    summary,
)
from tools.lab.loadtest.user import Outcome, Status


def outcome(
    status: Status = "succeeded", *, final_ms: float = 100.0, segment_ms: float = 800.0
) -> Outcome:
    return Outcome(
        session_id="s",
        expected="one two",
        text="one two" if status == "succeeded" else "one",
        status=status,
        reason="" if status == "succeeded" else "why",
        stored=True,
        audio_s=10.0,
        spoken_in_s=10.0,
        began_s=1.0,
        came_in_s=None if status == "refused" else 1.1,
        ended_s=11.5,
        segment_ms=[(2.0, segment_ms)],
        final_ms=final_ms,
    )


def test_percentiles_are_nearest_rank() -> None:
    assert percentile([5, 1, 3, 2, 4], 50) == 3
    assert percentile(list(range(1, 101)), 95) == 95
    assert percentile([7], 99) == 7
    assert math.isnan(percentile([], 50))


def test_a_latency_of_nothing_has_no_figures() -> None:
    nothing = latency("x", [])
    assert nothing.count == 0 and math.isnan(nothing.p95) and math.isnan(nothing.highest)


def test_summary_of_a_good_run() -> None:
    found = summary([outcome() for _ in range(20)])
    assert found.statuses == {"succeeded": 20} and found.reasons == {}
    assert found.texts_right and found.holds(Targets())
    assert found.rtf_p50 == pytest.approx(1.05)
    assert found.latency("finish → final").p95 == 100.0
    assert found.as_json()["latencies"]["segment end → result"]["p50_ms"] == 800.0
    assert found.as_json()["latencies"]["chunk ack"]["p50_ms"] is None


@pytest.mark.parametrize("status", ["wrong_text", "failed"])
def test_one_wrong_session_of_many_counts(status: Status) -> None:
    found = summary([*(outcome() for _ in range(99)), outcome(status)])
    assert not found.texts_right and not found.holds(Targets())
    assert found.reasons == {"why": 1}
    assert bool(found.wrong) == (status == "wrong_text")


def test_refused_sessions_are_not_wrong_texts_but_the_target_is_missed() -> None:
    found = summary([outcome(), outcome("refused")])
    assert found.texts_right and not found.holds(Targets())


def test_no_more_are_at_once_than_are_offered() -> None:
    later = replace(outcome(), began_s=10.9, came_in_s=11.0, ended_s=22.0)
    found = summary([outcome(), later])  # The first one waits for its last result.
    assert (found.at_once, found.offered_at_once) == (2, 2)


def test_sessions_admitted_one_after_the_other_do_not_hold() -> None:
    second = replace(outcome(), came_in_s=11.5, ended_s=22.0)
    found = summary([outcome(), second])
    assert (found.at_once, found.offered_at_once) == (1, 2)
    assert found.texts_right and not found.holds(Targets())
    assert summary([outcome(), replace(second, came_in_s=11.4)]).holds(Targets())


def test_the_most_at_once() -> None:
    assert most_at_once([]) == 0
    assert most_at_once([(0, 2), (1, 3), (2, 4), (2.5, 2.6)]) == 3
    assert most_at_once([(0, 1), (1, 2), (2, 3)]) == 1


@pytest.mark.parametrize("slow", [outcome(final_ms=1_001.0), outcome(segment_ms=1_501.0)])
def test_a_slow_run_does_not_hold(slow: Outcome) -> None:
    found = summary([slow] * 20)
    assert found.texts_right and not found.holds(Targets())


def test_a_run_without_an_admitted_session_is_not_right() -> None:
    for nothing in ([], [outcome("refused")]):
        assert not summary(nothing).texts_right and not summary(nothing).holds(Targets())


@pytest.mark.parametrize(
    "expected, received, shown",
    [
        ("one two three", "one three", "one [-two-] three"),
        ("one two", "one two two", "one two {+two+}"),
        ("一二三", "一五三", "一 [-二-] {+五+} 三"),
        ("one", "", "[-one-]"),
        ("a b c d e f g h x", "a b c d e f g h y", "a b c … f g h [-x-] {+y+}"),
    ],
)
def test_differences_are_shown_by_word(expected: str, received: str, shown: str) -> None:
    assert difference(expected, received) == shown
