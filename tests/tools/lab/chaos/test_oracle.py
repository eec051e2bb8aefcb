"""Every check finds the violation planted for it, and nothing in a right session."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools.lab.chaos import oracle
from tools.lab.harness.database import StoredSegment, StoredSession
from tools.lab.harness.usage import Usage
from tools.lab.loadtest.user import Outcome

RIGHT = StoredSession(
    "completed", "one two three", (StoredSegment(0, "one two"), StoredSegment(1, "three")), 60
)


def outcome(**changes: object) -> Outcome:
    right = Outcome("s", "one two three", text="one two three", status="succeeded", stored=True)
    return replace(right, **changes)  # type: ignore[arg-type]


def test_a_right_session_passes_every_check() -> None:
    assert oracle.texts_wrong([outcome()], 1) == []
    assert oracle.rows_wrong([outcome()], {"s": RIGHT}) == []
    assert oracle.promises_broken({"s": True}, {"s": RIGHT}) == []


@pytest.mark.parametrize(
    "outcomes",
    [
        [outcome(status="wrong_text", text="one two")],
        [outcome(status="failed", reason="1 segments were sent twice")],
        [outcome(status="refused")],
        [],
        [outcome(), outcome()],
    ],
    ids=["wrong text", "sent twice", "refused", "nothing", "one too many"],
)
def test_outcomes_that_are_wrong(outcomes: list[Outcome]) -> None:
    assert oracle.texts_wrong(outcomes, 1)


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"s": replace(RIGHT, status="active")},
        {"s": replace(RIGHT, text="one two")},
        {"s": replace(RIGHT, text=None)},
        {"s": replace(RIGHT, segments=RIGHT.segments[:1])},
        {"s": replace(RIGHT, segments=())},
        {"s": replace(RIGHT, segments=(*RIGHT.segments, RIGHT.segments[1]))},
        {"s": replace(RIGHT, segments=(RIGHT.segments[0], StoredSegment(2, "three")))},
        {"s": replace(RIGHT, segments=(StoredSegment(0, "three"), StoredSegment(1, "one two")))},
        {"s": replace(RIGHT, segments=(RIGHT.segments[0], StoredSegment(1, None)))},
        {"s": replace(RIGHT, chunks=0)},
    ],
    ids=[
        "no row",
        "not completed",
        "wrong text",
        "no text",
        "segment missing",
        "no segments",
        "segment doubled",
        "gap",
        "reordered",
        "segment without text",
        "no chunks",
    ],
)
def test_rows_that_are_wrong(stored: dict[str, StoredSession]) -> None:
    assert oracle.rows_wrong([outcome()], stored)


def test_without_a_session_the_check_fails() -> None:
    assert oracle.rows_wrong([], {"s": RIGHT})


def test_stored_before_the_commit_is_found() -> None:
    assert oracle.promises_broken({"s": True, "t": False}, {}) == [
        "session t: the client received stored: true before the commit"
    ]


def test_without_an_answer_of_the_database_the_row_decides() -> None:
    active = replace(RIGHT, status="active")
    assert oracle.promises_broken({"s": None}, {"s": RIGHT}) == []
    assert oracle.promises_broken({"s": None}, {"s": active})
    assert oracle.promises_broken({"s": None}, {}) == []


AT_REST = {"queued": 0, "processing": 0}


def test_a_system_at_rest() -> None:
    assert oracle.left_over(AT_REST, {"asr_broker_queued_jobs:0": 0.0}) == []


@pytest.mark.parametrize(
    ("queue", "gauges"),
    [
        ({"queued": 1, "processing": 0}, {"g": 0.0}),
        ({"queued": 0, "processing": 2}, {"g": 0.0}),
        ({"queued": 0}, {"g": 0.0}),
        ({}, {"g": 0.0}),
        (AT_REST, {"g": 1.0}),
        (AT_REST, {}),
    ],
    ids=["queued", "processing", "no count", "no answer", "gauge", "no gauges"],
)
def test_a_system_not_at_rest(queue: dict[str, object], gauges: dict[str, float]) -> None:
    assert oracle.left_over(queue, gauges)


def of_gateway(**changes: object) -> list[Usage]:
    used = Usage(1, "gateway", 60.0, 1.0, rss_mb=100.0, anonymous_mb=50.0, descriptors=40)
    return [replace(used, **changes)]  # type: ignore[arg-type]


def test_leaks() -> None:
    assert oracle.leaks(of_gateway(), of_gateway(descriptors=50, rss_mb=150.0)) == []
    assert oracle.leaks(of_gateway(), of_gateway(descriptors=100)) == [
        "gateway: 60 more file descriptors"
    ]
    assert oracle.leaks(of_gateway(), of_gateway(rss_mb=400.0)) == [
        "gateway: 400 MB, 100 MB before"
    ]
    assert oracle.leaks(of_gateway(), []) == ["no process to look at"]
    assert oracle.leaks(of_gateway(), of_gateway(kind="postgres")) == ["no process to look at"]


def test_a_restarted_process_is_not_compared() -> None:
    assert oracle.leaks(of_gateway(), of_gateway(pid=2, descriptors=400, rss_mb=900.0)) == []


def test_the_memory_of_a_young_process_is_no_baseline() -> None:
    young = of_gateway(age_s=oracle.LOADED_S - 1)
    assert oracle.leaks(young, of_gateway(rss_mb=400.0)) == []
    assert oracle.leaks(young, of_gateway(descriptors=100))
