"""Indexes of pending jobs, and the order of a session's jobs."""

from __future__ import annotations

from msgspec.structs import replace

from broker.jobs import JobIndex, timeline_key
from tests.broker.driving import GATEWAY, OTHER_GATEWAY, job
from tests.broker.invariants import check_index
from tests.broker.test_queues import pending


def test_jobs_are_found_by_session_and_gateway_until_they_are_removed() -> None:
    index = JobIndex()
    final, partial = pending(job(0)), pending(job(1, partial=True))
    other = pending(job(0, session_id="other"))
    for entry in (final, partial, other):
        index.add(entry)
        check_index(index)
    assert index.final("session", 0) is final and index.final("session", 1) is None
    assert index.partials("session") == [partial]
    assert index.of_session("session") == [final, partial]
    assert index.of_gateway(GATEWAY) == [final, partial, other]
    for entry in (final, partial, other):
        index.remove(entry)
        check_index(index)
    assert len(index) == 0 and index.of_session("session") == [] == index.of_gateway(GATEWAY)


def test_a_moved_job_belongs_to_the_new_gateway() -> None:
    index = JobIndex()
    entry = pending(job())
    index.add(entry)
    index.move(entry, OTHER_GATEWAY)
    check_index(index)
    assert entry.gateway == OTHER_GATEWAY
    assert index.of_gateway(OTHER_GATEWAY) == [entry] and index.of_gateway(GATEWAY) == []


def test_jobs_are_ordered_by_generation_segment_and_end_with_finals_last() -> None:
    ordered = [
        job(0, partial=True, end_ms=100),
        job(0, partial=True, end_ms=200),
        job(0, end_ms=150),
        job(1, partial=True, end_ms=10_100),
        replace(job(0, partial=True, end_ms=100), generation=1),
    ]
    assert sorted([*ordered[2:], *ordered[:2]], key=timeline_key) == ordered
