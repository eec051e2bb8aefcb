"""Each planted violation is caught, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools.lab.chaos import oracle
from tools.lab.chaos.oracle import Resources, StoredSegment, StoredSession
from tools.lab.loadtest.user import Outcome

RIGHT = StoredSession(
    "completed", "one two three", (StoredSegment(0, "one two"), StoredSegment(1, "three")), 60
)


def outcome(**changes: object) -> Outcome:
    right = Outcome("s", "one two three", text="one two three", status="succeeded", stored=True)
    return replace(right, **changes)  # type: ignore[arg-type]


def test_a_right_session_has_nothing_wrong() -> None:
    assert oracle.texts_wrong([outcome()], 1) == []
    assert oracle.rows_wrong([outcome()], {"s": RIGHT}) == []
    assert oracle.promises_broken({"s": True}) == []


@pytest.mark.parametrize(
    "outcomes",
    [
        [outcome(status="wrong_text", text="one two")],
        [outcome(status="failed", reason="1 segments were told twice")],
        [outcome(status="refused")],
        [],
        [outcome(), outcome()],
    ],
    ids=["wrong text", "told twice", "refused", "nothing", "one too many"],
)
def test_what_a_client_must_not_see(outcomes: list[Outcome]) -> None:
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


def test_no_session_is_not_right() -> None:
    assert oracle.rows_wrong([], {"s": RIGHT})


def test_a_promise_before_its_commit() -> None:
    assert oracle.promises_broken({"s": True, "t": False}) == [
        "session t: told stored, but it was not"
    ]


AT_REST = {"queued": 0, "processing": 0}


def test_rest() -> None:
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
    ids=["queued", "processing", "not told", "no answer", "gauge", "no gauges"],
)
def test_what_is_left_over(queue: dict[str, object], gauges: dict[str, float]) -> None:
    assert oracle.left_over(queue, gauges)


def resources(**of_gateway: float) -> Resources:
    found = Resources(names={1: "gateway"}, descriptors={1: 40}, memory_mb={1: 100.0})
    if "descriptors" in of_gateway:
        found.descriptors[1] = int(of_gateway["descriptors"])
    if "memory_mb" in of_gateway:
        found.memory_mb[1] = of_gateway["memory_mb"]
    return found


def test_leaks() -> None:
    assert oracle.leaks(resources(), resources(descriptors=50, memory_mb=150)) == []
    assert oracle.leaks(resources(), resources(descriptors=100)) == [
        "gateway: 60 more file descriptors"
    ]
    assert oracle.leaks(resources(), resources(memory_mb=400)) == ["gateway: 400 MB, 100 MB before"]
    assert oracle.leaks(resources(), Resources()) == ["no process to look at"]


def test_a_restarted_process_is_not_compared() -> None:
    after = Resources(names={2: "gateway"}, descriptors={2: 400}, memory_mb={2: 900.0})
    assert oracle.leaks(resources(), after) == []
