import itertools

import pytest
from msgspec.structs import replace

from gateway.session import session_jobs as s
from tests.gateway.session_driver import result_of
from wire.messages import Failure, Job, Result


def job(seq: int, **changes: object) -> Job:
    made = Job(
        session_id="a",
        seq=seq,
        partial=False,
        lane="live",
        start_ms=seq * 1000,
        end_ms=seq * 1000 + 800,
        last_chunk_index=seq,
        language="",
        hotwords=(),
        deadline_ms=60_000,
        pcm=b"\1\0" * 800,
    )
    return replace(made, **changes)


def added(kept: s.SessionJobs, seq: int, *, now_s: float, **changes: object) -> Job:
    made = job(seq, **changes)
    kept.add(made, now_s)
    return made


def result(of: Job, text: str | None = "one", error: Failure | None = None) -> Result:
    return result_of(of, text, error)


def test_results_are_delivered_in_order_and_once() -> None:
    kept = s.SessionJobs()
    jobs = [added(kept, i, now_s=0.0) for i in range(3)]
    assert kept.unanswered_audio_ms == 2400
    assert kept.take_result(result(jobs[2], "c"), 1.0) is None
    assert list(kept.pop_deliverable()) == []
    assert kept.take_result(result(jobs[0], "a"), 1.0) is None
    assert [r.text for r in kept.pop_deliverable()] == ["a"]
    assert kept.take_result(result(jobs[1], "b"), 1.0) is None
    assert [r.text for r in kept.pop_deliverable()] == ["b", "c"]
    assert kept.all_delivered
    assert kept.unanswered_audio_ms == 0
    assert kept.next_seq == 3


def test_a_second_result_is_ignored() -> None:
    kept = s.SessionJobs()
    first = added(kept, 0, now_s=0.0)
    assert kept.take_result(result(first, "a"), 1.0) is None
    assert kept.take_result(result(first, "b"), 1.0) == "repeated"
    assert [r.text for r in kept.pop_deliverable()] == ["a"]
    assert kept.take_result(result(first, "b"), 1.0) == "repeated"
    assert kept.take_result(result(job(7)), 1.0) == "unknown_segment"


def test_a_result_of_an_older_generation_is_ignored() -> None:
    """Its row would not be stored."""
    kept = s.SessionJobs()
    asked = added(kept, 0, generation=2, now_s=0.0)
    assert kept.take_result(replace(result(asked, "old"), generation=1), 1.0) == "stale_generation"
    assert kept.take_result(result(asked, "new"), 1.0) is None
    assert [r.text for r in kept.pop_deliverable()] == ["new"]


def test_an_unanswered_job_is_resent_with_its_remaining_time() -> None:
    kept = s.SessionJobs()
    sent = added(kept, 0, now_s=100.0)
    assert kept.due(100.0 + s.RESEND_AFTER_S - 0.1) == ([], [])
    ((again,), failed) = kept.due(100.0 + s.RESEND_AFTER_S)
    assert failed == []
    assert again == replace(sent, deadline_ms=50_000)
    assert kept.due(100.0 + s.RESEND_AFTER_S) == ([], [])


def test_a_new_broker_epoch_resends_unanswered_jobs() -> None:
    kept = s.SessionJobs()
    jobs = [added(kept, i, now_s=0.0) for i in range(2)]
    kept.take_result(result(jobs[0]), 0.5)
    assert [j.seq for j in kept.resend_all(1.0)] == [1]


def test_overloaded_is_retried_with_backoff_and_not_delivered() -> None:
    kept = s.SessionJobs()
    first = added(kept, 0, now_s=0.0)
    refusal = result(first, None, Failure(code="overloaded", message="full"))
    assert kept.take_result(refusal, 1.0) == "overloaded"
    assert kept.due(1.4) == ([], [])
    assert [j.seq for j in kept.due(1.5)[0]] == [0]
    assert kept.take_result(refusal, 2.0) == "overloaded"
    assert kept.due(2.9) == ([], [])
    assert [j.seq for j in kept.due(3.0)[0]] == [0]


@pytest.mark.parametrize("grace", [0.0, s.DEADLINE_GRACE_S - 0.01])
def test_the_broker_has_time_to_report_the_deadline_itself(grace: float) -> None:
    kept = s.SessionJobs()
    added(kept, 0, now_s=0.0, deadline_ms=1_000)
    assert kept.due(1.0 + grace) == ([], [])


def test_at_the_deadline_the_segment_fails_here() -> None:
    kept = s.SessionJobs()
    added(kept, 0, now_s=0.0, deadline_ms=1_000)
    resend, (failed,) = kept.due(1.0 + s.DEADLINE_GRACE_S)
    assert resend == []
    assert failed.error is not None and failed.error.code == "deadline"
    assert failed.last_chunk_index == 0


def test_the_waiting_time_of_a_segment() -> None:
    kept = s.SessionJobs()
    added(kept, 0, now_s=3.0)
    assert kept.waited_s(0, 5.0) == 2.0


# ---------------------------------------------------------------------------------- partial results


def submitted(pacing: s.PartialPacing, *ends_ms: int, answer_s: float = 0.0) -> list[int]:
    """Speak from 100 ms on; return the ends of the partial jobs, each answered after ``answer_s``
    at the latest when the next would be due."""
    ends = []
    answers: list[tuple[float, int]] = []
    for end_ms in ends_ms:
        now_s = end_ms / 1000
        while answers and answers[0][0] <= now_s:
            at_s, answered_ms = answers.pop(0)
            pacing.answered(answered_ms, at_s)
        if pacing.submit(100, end_ms, now_s):
            ends.append(end_ms)
            answers.append((now_s + answer_s, end_ms))
    return ends


def test_a_partial_job_follows_enough_new_audio() -> None:
    pacing = s.PartialPacing(every_ms=600)
    assert submitted(pacing, 200, 699, 700, 1200, 1300) == [700, 1300]


def test_the_pause_before_an_utterance_does_not_count_as_new_audio() -> None:
    pacing = s.PartialPacing(every_ms=600)
    pacing.segment_ended(1000)
    assert not pacing.submit(5000, 5500, 5.5)
    assert pacing.submit(5000, 5600, 5.6)


def test_one_partial_job_is_in_flight_until_its_answer_or_the_end_of_its_segment() -> None:
    pacing = s.PartialPacing(every_ms=600)
    assert pacing.submit(0, 600, 0.6)
    assert not pacing.submit(0, 1800, 1.8)
    pacing.segment_ended(2000)
    assert pacing.submit(2500, 3100, 3.1)
    # The answer of the partial job before is no answer to this one.
    pacing.answered(600, 3.2)
    assert not pacing.submit(2500, 3700, 3.7)


def test_a_partial_job_that_the_broker_drops_is_not_waited_for() -> None:
    pacing = s.PartialPacing(every_ms=600)
    assert pacing.submit(0, 600, 0.6)
    late_ms = round(600 + 1000 * s.PARTIAL_ANSWER_S_MAX)
    assert not pacing.submit(0, late_ms - 100, late_ms / 1000 - 0.1)
    assert pacing.submit(0, late_ms, late_ms / 1000)


@pytest.mark.parametrize(("answer_s", "every_ms"), [(0.1, 600), (0.4, 1_200), (1.5, 4_500)])
def test_partial_jobs_that_are_answered_slowly_become_rarer(answer_s: float, every_ms: int) -> None:
    pacing = s.PartialPacing(every_ms=600)
    ends = submitted(pacing, *range(100, 20_000, 100), answer_s=answer_s)
    assert {after - before for before, after in itertools.pairwise(ends)} == {every_ms}


def test_after_a_slow_answer_the_next_utterance_has_its_first_partial_soon() -> None:
    pacing = s.PartialPacing(every_ms=600)
    assert pacing.submit(0, 600, 0.6)
    pacing.answered(600, 1.1)
    pacing.segment_ended(1500)
    assert pacing.submit(2500, 3100, 3.1)


def test_partial_results_are_monotonic() -> None:
    pacing = s.PartialPacing(every_ms=600)
    sent = [pacing.send(end_ms, str(end_ms)) for end_ms in (700, 600, 700, 900)]
    assert sent == [True, False, False, True]
    pacing.segment_ended(2000)
    assert not pacing.send(1900, "text")


def test_a_worker_that_has_not_caught_up_takes_no_words_back() -> None:
    pacing = s.PartialPacing(every_ms=600)
    texts = ["one", "one two", "one", "", "one two three", "two"]
    sent = [pacing.send(600 * n, text) for n, text in enumerate(texts, 1)]
    assert sent == [True, True, False, False, True, True]
    pacing.segment_ended(4_200)
    assert pacing.send(4_800, "t"), "of the next segment"
