"""Answers to one client over all its connections."""

from __future__ import annotations

from gateway.session import events as e
from gateway.session.delivery import CONTEXT_CHARS_MAX, MISSED_PROBLEMS_MAX, Delivery
from gateway.session.states import State
from tests.gateway.session_driver import SessionDriver, silence, speech, texts
from wire.records import SessionFinished, parse_body

TWO_WORDS = silence(400) + speech(500) + silence(1000) + speech(700, 2) + silence(1000)


def _state(driver: SessionDriver) -> State:
    return driver.session.state


def test_a_client_that_never_resumes_is_stored_as_abandoned() -> None:
    driver = SessionDriver(resume_wait_s=60.0)
    driver.start()
    driver.chunk(speech(500))
    assert driver.feed(e.Disconnected()) == []
    driver.tick(59.9)
    assert driver.jobs == [] and driver.session.resumable
    driver.tick(60.0)
    (job,) = driver.jobs
    assert driver.recognise(job, "eins") == []
    assert not driver.session.resumable
    assert [r.text for r in driver.kept] == ["eins"]
    body = parse_body(driver.records[-1].body)
    assert isinstance(body, SessionFinished)
    assert (body.status, body.text) == ("abandoned", "eins")
    assert driver.store_all() == []
    assert _state(driver) is State.DONE


def _resumed(chunk_index: int, segment_index: int) -> e.Resumed:
    return e.Resumed(
        session_id="s",
        resume_token="token",
        next_chunk_index=chunk_index,
        next_segment_index=segment_index,
    )


def test_a_client_that_resumes_continues_at_its_resume_point() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(speech(500))
    driver.feed(e.Disconnected())
    assert driver.feed(e.Attached(next_segment_index=None)) == [_resumed(1, 0)]
    driver.chunk(speech(300) + silence(1000))
    (job,) = driver.jobs
    assert speech(800) in job.pcm
    driver.tick(1000.0)
    assert _state(driver) is State.ACTIVE


def test_missed_results_are_sent_once_after_a_resume() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS)
    first, second = driver.jobs
    assert texts(driver.recognise(first, "eins")) == ["eins"]
    driver.feed(e.SegmentWritten(segment_index=0))
    driver.feed(e.Disconnected())
    assert driver.recognise(second, "zwei") == []
    answers = driver.feed(e.Attached(next_segment_index=None))
    assert answers[0] == _resumed(1, 1)
    assert texts(answers) == ["zwei"]
    assert texts(driver.feed(e.Attached(next_segment_index=0))) == ["eins", "zwei"]
    assert texts(driver.feed(e.Attached(next_segment_index=2))) == []


def test_a_result_that_was_not_written_is_sent_again() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS)
    assert texts(driver.recognise(driver.jobs[0], "eins")) == ["eins"]
    driver.feed(e.Disconnected())
    assert texts(driver.feed(e.Attached(next_segment_index=None))) == ["eins"]


def test_a_missed_error_is_sent_after_a_resume() -> None:
    driver = SessionDriver()
    driver.failing = {0}
    driver.start()
    driver.feed(e.Disconnected())
    assert driver.chunk(b"noise") == []
    _, problem = driver.feed(e.Attached(next_segment_index=None))
    assert isinstance(problem, e.Problem) and problem.code == "bad_audio"
    assert driver.feed(e.Attached(next_segment_index=None)) == [_resumed(1, 0)]


def test_a_final_result_lost_with_its_connection_is_sent_again_after_a_resume() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(speech(500) + silence(1000))
    driver.finish()
    driver.feed(e.Disconnected())
    (job,) = driver.jobs
    assert driver.recognise(job, "eins") == []
    body = parse_body(driver.records[-1].body)
    assert isinstance(body, SessionFinished) and body.status == "completed"
    driver.store_all()
    assert _state(driver) is State.DONE
    final = e.Finished(session_id="s", text="eins", duration_ms=1500, chunk_count=1, stored=True)
    for _ in range(2):
        driver.feed(e.Disconnected())
        assert texts(driver.feed(e.Attached(next_segment_index=None))) == ["eins"]
        assert driver.finish() == [final]
    assert [type(a) for a in driver.others] == [e.ObserveFinish, e.Close, e.Close]


def test_a_client_that_resumes_while_its_session_ends_gets_one_final_result() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(speech(500) + silence(1000))
    driver.finish()
    driver.recognise(driver.jobs[0], "eins")
    driver.feed(e.Disconnected())
    driver.feed(e.Attached(next_segment_index=1))
    assert [type(answer) for answer in driver.store_all()] == [e.Finished]
    assert driver.finish() == []


def test_a_repeated_finish_has_no_effect() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(speech(500))
    driver.finish()
    assert driver.finish() == []
    assert len(driver.jobs) == 1


def test_the_end_of_a_finished_session_is_stored_when_the_gateway_stops() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(speech(500))
    driver.finish()
    driver.feed(e.Disconnected())
    driver.feed(e.Interrupted())
    assert _ends(driver) == [("interrupted", "")]
    (job,) = driver.jobs
    assert not job.provisional
    driver.recognise(job, "eins")
    assert _ends(driver) == [("interrupted", ""), ("completed", "eins")]
    assert _state(driver) is State.CONFIRMING
    driver.feed(e.Interrupted())
    assert len(_ends(driver)) == 2


def _ends(driver: SessionDriver) -> list[tuple[str, str | None]]:
    bodies = [parse_body(record.body) for record in driver.records]
    return [(body.status, body.text) for body in bodies if isinstance(body, SessionFinished)]


def test_errors_beyond_the_limit_are_counted_for_a_client_that_is_away() -> None:
    delivery = Delivery("s")
    delivery.detach(0.0)
    problem = e.Problem(code="bad_audio", message="")
    for _ in range(MISSED_PROBLEMS_MAX):
        assert delivery.send(problem) == []
    assert delivery.send(problem) == [e.Count(discarded="answer", reason="client_away")]
    # Acknowledgements are not missed: ``Resumed`` replaces them.
    assert delivery.send(e.ChunkReceived(chunk_index=1)) == []
    delivery.attach(None)
    assert delivery.missed() == [problem] * MISSED_PROBLEMS_MAX


def test_a_job_has_the_end_of_the_text_before_it_if_that_is_delivered() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS)
    first, second = driver.jobs
    assert (first.context, second.context) == ("", "")
    driver.recognise(second, "zwei")
    driver.recognise(first, "eins")
    driver.chunk(speech(500, 3) + silence(1000))
    assert driver.jobs[-1].context == "zwei"
    driver.recognise(driver.jobs[-1], "d" * CONTEXT_CHARS_MAX + "rei")
    driver.chunk(speech(500, 4) + silence(1000))
    assert driver.jobs[-1].context == "d" * (CONTEXT_CHARS_MAX - 3) + "rei"
