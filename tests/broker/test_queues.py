"""Order of waiting jobs: fairness between sessions, lanes, retries."""

from __future__ import annotations

from itertools import count

import pytest

from broker import limits as limit
from broker.jobs import PendingJob, audio_ms_of
from broker.limits import BULK_EVERY_ASSIGNMENTS
from broker.queues import FairQueue, JobQueue
from tests.broker.driving import DEFAULTS, GATEWAY, job
from tests.broker.invariants import check_fair_queue, check_queue, heap_length
from wire.messages import Job

_ids = count(1)


def pending(wire_job: Job) -> PendingJob:
    return PendingJob(
        job_id=next(_ids),
        job=wire_job,
        gateway=GATEWAY,
        audio_ms=audio_ms_of(wire_job),
        received_s=0.0,
        deadline_s=1e9,
    )


def of(session_id: str, audio_ms: int = 1_000) -> PendingJob:
    return pending(job(session_id=session_id, audio_ms=audio_ms))


def sessions(queue: FairQueue, turns: int) -> str:
    names = []
    for _ in range(turns):
        entry = queue.pop()
        names.append(entry.job.session_id if entry is not None else "-")
        check_fair_queue(queue)
    return "".join(names)


def test_sessions_take_turns() -> None:
    queue = FairQueue()
    for session_id in "aaabbc":
        queue.push(of(session_id))
    assert sessions(queue, 7) == "abcaba-"


def test_turns_are_measured_in_audio() -> None:
    queue = FairQueue()
    for session_id, audio_ms in [("a", 3_000)] * 3 + [("b", 1_000)] * 6:
        queue.push(of(session_id, audio_ms))
    assert sessions(queue, 9) == "abbbabbba"


def test_a_session_that_sends_one_by_one_does_not_overtake() -> None:
    """Its start time is remembered while it has no waiting jobs."""
    queue = FairQueue()
    for session_id in "aaab":
        queue.push(of(session_id))
    served = ""
    for _ in range(6):
        served += sessions(queue, 1)
        if served[-1] == "b":
            queue.push(of("b"))
    assert served == "ababab"


def test_start_times_are_forgotten_when_the_queue_is_empty() -> None:
    queue = FairQueue()
    queue.push(of("a", 60_000))
    queue.pop()
    assert heap_length(queue) == 0
    queue.push(of("a"))
    queue.push(of("b"))
    assert sessions(queue, 2) == "ab"


def test_removed_jobs_leave_no_bookkeeping() -> None:
    queue = FairQueue()
    stays = of("stays")
    queue.push(stays)
    for index in range(1_000):
        entry = of(f"s{index}")
        queue.push(entry)
        queue.remove(entry)
    check_fair_queue(queue)
    assert len(queue) == 1
    assert queue.pop() is stays
    assert heap_length(queue) == 0


def test_remembered_start_times_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "SERVED_FLOWS_MAX", 10)
    queue = FairQueue()
    queue.push(of("last", 1_000_000))
    queue.push(of("last", 1_000_000))
    for index in range(100):
        queue.push(of(f"s{index}"))
    sessions(queue, 101)
    assert heap_length(queue) <= 12


def lanes(queue: JobQueue, turns: int) -> str:
    out = ""
    for _ in range(turns):
        entry = queue.pop(bulk=True, partials=True)
        check_queue(queue)
        if entry is None:
            return out + "-"
        out += "p" if entry.job.partial else entry.job.lane[0]
    return out


def test_bulk_gets_its_share_and_partials_come_after_live_jobs() -> None:
    queue = JobQueue(DEFAULTS)
    for index in range(20):
        queue.push(pending(job(index, session_id="live")))
        queue.push(pending(job(index, session_id="bulk", lane="bulk")))
    queue.push(pending(job(99, session_id="live", partial=True)))
    live = "l" * (BULK_EVERY_ASSIGNMENTS - 1)
    assert lanes(queue, 16) == (live + "b") * 2
    assert lanes(queue, 26) == "l" * 6 + "p" + "b" * 18 + "-"


def test_a_bulk_job_that_is_not_due_waits_if_it_must() -> None:
    queue = JobQueue(DEFAULTS)
    queue.push(pending(job(0, session_id="bulk", lane="bulk")))
    assert queue.pop(bulk=False, partials=True) is None
    for index in range(BULK_EVERY_ASSIGNMENTS):
        queue.push(pending(job(index, session_id="live")))
    out = [queue.pop(bulk=False, partials=True) for _ in range(BULK_EVERY_ASSIGNMENTS)]
    assert [entry.job.lane for entry in out if entry] == ["live"] * 7 + ["bulk"]


def test_a_returned_job_is_first() -> None:
    queue = JobQueue(DEFAULTS)
    back = of("a")
    queue.push(back)
    queue.pop(bulk=True, partials=False)
    queue.push(of("b"))
    queue.requeue(back)
    assert queue.pop(bulk=True, partials=False) is back


def test_a_job_before_its_last_attempt_must_run_exclusively() -> None:
    queue = JobQueue(DEFAULTS)
    suspect = of("a")
    suspect.attempts_lost = 2
    queue.requeue(suspect)
    check_queue(queue)
    assert queue.has_exclusive
    assert queue.pop(bulk=True, partials=True) is None
    assert queue.pop_exclusive() is suspect
    assert (len(queue), queue.audio_ms) == (0, 0)


def test_jobs_can_be_removed_from_each_place() -> None:
    queue = JobQueue(DEFAULTS)
    entries = [of("a"), pending(job(lane="bulk")), pending(job(partial=True))]
    for entry in entries:
        queue.push(entry)
    for attempts_lost in (1, 2):
        entry = of("c")
        entry.attempts_lost = attempts_lost
        queue.requeue(entry)
        entries.append(entry)
    assert [entry.location for entry in entries] == [
        "live",
        "bulk",
        "partial",
        "retry",
        "exclusive",
    ]
    for entry in entries:
        queue.remove(entry)
        check_queue(queue)
    assert (len(queue), queue.audio_ms) == (0, 0)


def test_empty_audio_is_not_free() -> None:
    assert audio_ms_of(job(audio_ms=0)) == 1
