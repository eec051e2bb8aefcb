"""The job book: the actions of a worker for any sequence of messages from a broker."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from asr_worker.batching import BatchLimits
from asr_worker.job_book import (
    ANSWERED_MAX,
    CREDITS_PER_BATCH_JOB,
    JobBook,
    JobBooks,
    JobsDiscarded,
    MessageRejected,
)
from asr_worker.recognizer.protocol import Recognition
from wire.messages import (
    Abilities,
    Bye,
    Cost,
    Hello,
    JobAttempt,
    Mark,
    MarkArrived,
    Message,
    Ready,
    Refused,
    Welcome,
    WorkerJob,
)

LIMITS = BatchLimits(jobs_max=4, audio_ms_max=60_000)
ABILITIES = Abilities(hotwords="words", batch_jobs=4)
READY = Ready(
    worker_id="worker-1",
    credits=CREDITS_PER_BATCH_JOB * 4,
    model="demo",
    device="cpu",
    abilities=ABILITIES,
    served_name="digits",
)


def new_book() -> JobBook:
    return JobBook(replace(READY, credits=0), LIMITS)


def welcomed_book() -> JobBook:
    book = new_book()
    assert book.introduce() == READY
    assert book.receive(Welcome(broker_epoch="a")) == []
    return book


def job(job_id: int, attempt: int = 1, epoch: str = "a", **changes: Any) -> WorkerJob:
    fields = {
        "partial": False,
        "language": "",
        "hotwords": (),
        "pcm": b"\0\0" * 16_000,
        **changes,
    }
    return WorkerJob(broker_epoch=epoch, job_id=job_id, attempt=attempt, **fields)


def answer(book: JobBook, batch: list[WorkerJob]) -> list[int]:
    """Job ids of the results of ``batch``."""
    texts = [Recognition(text=str(each.job_id)) for each in batch]
    results = book.answer(batch, texts, infer_ms=7)
    assert [result.text for result in results] == [str(each.job_id) for each in batch]
    return [result.job_id for result in results]


def test_results_identify_their_job() -> None:
    book = welcomed_book()
    for job_id in range(6):
        assert book.receive(job(job_id, attempt=2)) == []
    batch = book.take_batch()
    (first, *_) = book.answer(batch, [Recognition(text="x")] * 4, infer_ms=7)
    assert (first.broker_epoch, first.job_id, first.attempt) == ("a", 0, 2)
    assert (first.text, first.error, first.infer_ms) == ("x", None, 7)
    assert [each.job_id for each in book.take_batch()] == [4, 5]


def test_an_attempt_gets_one_result_however_often_it_arrives() -> None:
    book = welcomed_book()
    duplicate = [JobsDiscarded("duplicate")]
    assert book.receive(job(1)) == []
    assert book.receive(job(1)) == duplicate
    batch = book.take_batch()
    assert book.receive(job(1)) == duplicate
    assert answer(book, batch) == [1]
    assert book.receive(job(1)) == duplicate
    assert book.take_batch() == []


def test_a_newer_attempt_supersedes_a_queued_older_one() -> None:
    book = welcomed_book()
    book.receive(job(1, attempt=1))
    assert book.receive(job(1, attempt=2)) == [JobsDiscarded("superseded")]
    assert [each.attempt for each in book.take_batch()] == [2]


def test_a_newer_attempt_of_a_running_job_runs_as_well() -> None:
    book = welcomed_book()
    book.receive(job(1, attempt=1))
    running = book.take_batch()
    book.receive(job(1, attempt=2))
    assert [each.attempt for each in book.take_batch()] == [2]
    assert answer(book, running) == [1]


def test_a_mark_is_answered_whatever_the_worker_holds() -> None:
    assert new_book().receive(Mark(number=1)) == [MarkArrived(number=1)]
    book = welcomed_book()
    book.receive(job(1))
    book.drain()
    assert book.receive(Mark(number=2, padding=b"\0")) == [MarkArrived(number=2)]


def test_a_new_epoch_drops_the_queue_and_registers_again() -> None:
    book = welcomed_book()
    book.receive(job(1))
    running = book.take_batch()
    book.receive(job(2))
    assert book.receive(Welcome(broker_epoch="b")) == [JobsDiscarded("old_epoch"), READY]
    assert book.receive(Welcome(broker_epoch="b")) == []
    assert book.receive(job(3, epoch="a")) == [JobsDiscarded("old_epoch")]
    assert book.take_batch() == []
    assert answer(book, running) == [1]
    book.receive(job(4, epoch="b"))
    assert [each.job_id for each in book.take_batch()] == [4]


def test_a_broker_that_forgot_the_worker_in_the_same_epoch_gets_ready_again() -> None:
    book = welcomed_book()
    book.receive(job(1))
    book.receive(job(2))
    assert book.receive(Welcome(broker_epoch="a")) == [JobsDiscarded("forgotten", 2), READY]
    assert book.receive(Welcome(broker_epoch="a")) == []
    assert book.take_batch() == []


def test_a_welcome_answers_a_ready_in_transit() -> None:
    book = welcomed_book()
    book.introduce()
    assert book.receive(Welcome(broker_epoch="b")) == []
    assert book.receive(Welcome(broker_epoch="b")) == [READY]


def test_after_a_refusal_a_welcome_asks_for_another_ready() -> None:
    book = new_book()
    assert book.introduce() == READY
    assert book.receive(Refused(version_min=2, version_max=2)) == [
        MessageRejected("version_refused")
    ]
    assert book.receive(Welcome(broker_epoch="a")) == [READY]
    assert book.receive(Welcome(broker_epoch="a")) == []


def test_on_a_new_connection_the_broker_learns_what_the_worker_holds() -> None:
    book = welcomed_book()
    for job_id in (1, 2, 3):
        book.receive(job(job_id))
    book.take_batch()
    book.receive(job(4))
    (ready,) = book.reconnected()
    assert isinstance(ready, Ready)
    assert ready.broker_epoch == "a"
    assert {each.job_id for each in ready.held} == {1, 2, 3, 4}
    assert book.receive(Welcome(broker_epoch="a")) == [], "nothing is forgotten"


def test_after_a_new_connection_the_broker_may_assign_its_credits_twice() -> None:
    """Jobs reach the worker on it before the broker has taken the ``Ready``. That does not name
    them, so the broker takes them back, and assigns as many again."""
    book = welcomed_book()
    (ready,) = book.reconnected()
    assert isinstance(ready, Ready) and ready.held == ()
    before, after = range(READY.credits), range(READY.credits, 2 * READY.credits)
    messages: list[Message] = [*map(job, before), Welcome(broker_epoch="a"), *map(job, after)]
    assert all(book.receive(message) == [] for message in messages)
    assert book.queued == 2 * READY.credits


def test_a_result_lost_with_its_connection_is_made_again() -> None:
    book = welcomed_book()
    book.receive(job(1))
    assert answer(book, book.take_batch()) == [1]
    assert book.receive(job(1)) == [JobsDiscarded("duplicate")]
    (ready,) = book.reconnected()
    assert isinstance(ready, Ready) and ready.held == ()
    assert book.receive(job(1)) == []
    assert answer(book, book.take_batch()) == [1]


def test_a_draining_worker_stays_draining_on_a_new_connection() -> None:
    book = welcomed_book()
    book.drain()
    (bye,) = book.reconnected()
    assert isinstance(bye, Bye) and bye.returned == ()


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"system_id": "two"}, "system_refused"),
        ({"setting": "BROKER_BACKEND"}, "wrong_endpoint"),
        ({}, "version_refused"),
    ],
)
def test_a_refusal_is_counted_by_its_reason(field: dict[str, str], reason: str) -> None:
    refused = Refused(version_min=1, version_max=1, **field)
    assert new_book().receive(refused) == [MessageRejected(reason)]


def test_jobs_beyond_the_credits_are_discarded() -> None:
    book = welcomed_book()
    actions = [action for job_id in range(100) for action in book.receive(job(job_id))]
    assert book.queued <= 2 * READY.credits + LIMITS.jobs_max
    assert actions == [JobsDiscarded("over_credit")] * (100 - book.queued)


def test_jobs_share_a_batch_unless_the_model_takes_an_option_in_which_they_differ() -> None:
    book = welcomed_book()
    book.receive(job(0, language="zh"))
    book.receive(job(1, language="en"))
    book.receive(job(2, hotwords=("word",)))
    book.receive(job(3))
    # The model takes hotwords and no language.
    assert [each.job_id for each in book.take_batch()] == [0, 1, 3]
    assert [each.job_id for each in book.take_batch()] == [2]


def test_the_expected_duration_of_a_batch_is_by_the_longest_job() -> None:
    limits = replace(LIMITS, cost=Cost(batch_s=0.25, utterance_s=0.5, second_s=0.1))
    book = JobBook(READY, limits)
    batch = [job(1, pcm=bytes(32_000)), job(2, pcm=bytes(64_000))]
    assert book.expected_s(batch) == pytest.approx(0.25 + 2 * 0.5 + 4 * 0.1)


def test_a_message_not_for_workers_is_rejected() -> None:
    assert welcomed_book().receive(READY) == [MessageRejected("not_for_workers")]


def test_draining_returns_the_queue_and_later_jobs() -> None:
    book = welcomed_book()
    for job_id in range(6):
        book.receive(job(job_id))
    running = book.take_batch()
    returned = (JobAttempt(job_id=4, attempt=1), JobAttempt(job_id=5, attempt=1))
    assert book.drain() == Bye(worker_id="worker-1", broker_epoch="a", returned=returned)
    late = (JobAttempt(job_id=6, attempt=3),)
    assert book.receive(job(6, attempt=3)) == [
        JobsDiscarded("draining"),
        Bye(worker_id="worker-1", broker_epoch="a", returned=late),
    ]
    assert book.receive(Welcome(broker_epoch="b")) == []
    assert book.take_batch() == []
    assert answer(book, running) == [0, 1, 2, 3]


def test_giving_up_returns_the_running_jobs() -> None:
    book = welcomed_book()
    book.receive(job(1))
    book.take_batch()
    assert book.drain().returned == ()
    assert book.give_up().returned == (JobAttempt(job_id=1, attempt=1),)


def test_draining_before_any_contact_returns_no_jobs() -> None:
    book = new_book()
    book.introduce()
    assert book.drain() == Bye(worker_id="worker-1", broker_epoch="", returned=())


def test_answered_jobs_are_remembered_up_to_a_limit() -> None:
    book = welcomed_book()
    for job_id in range(ANSWERED_MAX + 1):
        book.receive(job(job_id))
        answer(book, book.take_batch())
    book.receive(job(ANSWERED_MAX))
    assert book.take_batch() == []
    book.receive(job(0))
    assert [each.job_id for each in book.take_batch()] == [0]


messages = st.one_of(
    st.builds(Welcome, broker_epoch=st.sampled_from("ab")),
    st.builds(job, st.integers(0, 5), st.integers(1, 3), st.sampled_from("ab")),
    st.just(Hello(gateway_id="lost")),
    st.just(READY),
)


@given(st.lists(st.one_of(messages, st.sampled_from(["take", "answer"])), max_size=80))
def test_no_message_raises_or_causes_a_second_result(steps: list[Message | str]) -> None:
    book = new_book()
    book.introduce()
    running: list[WorkerJob] = []
    answered: set[tuple[str, int, int]] = set()
    for step in steps:
        if step == "take" and not running:
            running = book.take_batch()
        elif step == "answer" and running:
            for result in book.answer(running, [Recognition(text="")] * len(running), 0):
                key = (result.broker_epoch, result.job_id, result.attempt)
                assert key not in answered
                answered.add(key)
            running = []
        elif not isinstance(step, str):
            allowed = Ready | JobsDiscarded | MessageRejected
            assert all(isinstance(action, allowed) for action in book.receive(step))
    returned = book.drain().returned
    assert len(returned) == len(set(returned))


def test_a_streaming_model_takes_partials_beside_its_credits() -> None:
    abilities = Abilities(batch_jobs=4, streaming=True)
    worker = replace(READY, abilities=abilities)
    book = JobBook(worker, replace(LIMITS, streamed_jobs_max=3))
    ready = book.introduce()
    assert (ready.credits, ready.streamed_credits) == (8, 6)
    book.receive(Welcome(broker_epoch="a"))
    assert book.receive(job(1)) == []
    # Of any length and with any options: only what is new of each is processed.
    for number, seconds in enumerate((1, 20, 3, 7), start=2):
        partial = job(number, partial=True, pcm=bytes(32_000 * seconds), hotwords=(str(number),))
        assert book.receive(partial) == []
    assert [job.job_id for job in book.take_batch()] == [1]
    assert [job.job_id for job in book.take_batch()] == [2, 3, 4]
    assert [job.job_id for job in book.take_batch()] == [5]


def two_books() -> tuple[JobBook, JobBook]:
    """The books of two brokers, with the epochs ``a`` and ``b``."""
    one = new_book()
    other = one.another()
    for book, epoch in ((one, "a"), (other, "b")):
        book.share(2)
        book.introduce()
        assert book.receive(Welcome(broker_epoch=epoch)) == []
    return one, other


def test_brokers_share_the_credits_and_each_has_at_least_one() -> None:
    one, other = two_books()
    assert one.introduce().credits == other.introduce().credits == READY.credits // 2
    for brokers in (0, 1, 3, 1_000):
        one.share(brokers)
        assert one.credits == max(1, -(-READY.credits // max(1, brokers)))


def test_jobs_of_two_brokers_share_a_batch_and_their_ids_do_not_collide() -> None:
    one, other = two_books()
    for job_id in (1, 2):
        assert one.receive(job(job_id)) == []
    assert other.receive(job(1, attempt=2, epoch="b")) == []
    batch = one.take_batch()
    assert [(each.broker_epoch, each.job_id) for each in batch] == [("a", 1), ("a", 2), ("b", 1)]
    results = other.answer(batch, [Recognition(text="")] * 3, infer_ms=7)
    assert [(each.broker_epoch, each.broker_jobs) for each in results] == [
        *[("a", 2)] * 2,
        ("b", 1),
    ]
    assert one.queued == other.queued == 0


def test_each_broker_has_a_book_and_gets_the_results_of_its_jobs() -> None:
    books = JobBooks(new_book())
    introduced = books.follow(["0", "1"], 2, ["0", "1"])
    assert [(place, type(ready)) for place, ready in introduced] == [("0", Ready), ("1", Ready)]
    for place, epoch in (("0", "a"), ("1", "b")):
        book = books.by_place[place]
        assert book.credits == READY.credits // 2
        book.receive(Welcome(broker_epoch=epoch))
        assert book.receive(job(1, epoch=epoch)) == []
    book = books.by_place["1"]
    results = book.answer(book.take_batch(), [Recognition(text="")] * 2, infer_ms=7)
    assert [books.place_of(result) for result in results] == ["0", "1"]


def test_a_broker_without_an_address_leaves_its_credits_and_its_jobs_do_not_run() -> None:
    books = JobBooks(new_book())
    books.follow(["0", "1"], 2, ["0", "1"])
    for place, epoch in (("0", "a"), ("1", "b")):
        books.by_place[place].receive(Welcome(broker_epoch=epoch))
        books.by_place[place].receive(job(1, epoch=epoch))
    assert books.follow(["0", "1"], 1, []) == []
    assert books.by_place["0"].credits == READY.credits
    assert books.follow(["0"], 1, []) == [("1", JobsDiscarded("forgotten"))]
    assert [each.broker_epoch for each in books.by_place["0"].take_batch()] == ["a"]


def test_a_restarted_broker_takes_no_jobs_of_another() -> None:
    one, other = two_books()
    one.receive(job(1))
    other.receive(job(1, epoch="b"))
    actions = one.receive(Welcome(broker_epoch="c"))
    assert JobsDiscarded("old_epoch") in actions
    assert [each.broker_epoch for each in other.take_batch()] == ["b"]


def test_each_broker_learns_what_is_held_and_returned_of_its_own() -> None:
    one, other = two_books()
    one.receive(job(1))
    other.receive(job(2, epoch="b"))
    (ready,) = one.reconnected()
    assert isinstance(ready, Ready) and ready.held == (JobAttempt(job_id=1, attempt=1),)
    assert one.drain().returned == (JobAttempt(job_id=1, attempt=1),)
    assert other.queued == 1
    assert other.drain().returned == (JobAttempt(job_id=2, attempt=1),)


def test_the_jobs_of_one_broker_take_no_place_from_another() -> None:
    one, other = two_books()
    for job_id in range(100):
        one.receive(job(job_id))
    assert [other.receive(job(n, epoch="b")) for n in range(READY.credits)] == [[]] * READY.credits
