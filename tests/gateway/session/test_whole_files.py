"""A chunk that holds one whole file gets exactly one answer."""

from __future__ import annotations

from typing import Any

from gateway.audio.timeline import AudioDecoded
from gateway.session import events as e
from tests.gateway.session_driver import SessionDriver, detect, result_of, silence, speech
from wire.messages import Failure

TWO = speech(400) + silence(900) + speech(400, 2) + silence(900)


def started(files: int = 9) -> SessionDriver:
    driver = SessionDriver()
    driver.whole_files = set(range(files))
    driver.start(result_per_file=True)
    return driver


def reported(answers: list[e.Answer]) -> list[tuple[Any, ...]]:
    """Chunk, first and last segment, and text of each result; code of each error."""
    said: list[tuple[Any, ...]] = []
    for answer in answers:
        if isinstance(answer, e.SegmentText):
            first = answer.first_segment_index
            said.append((answer.chunk_index, first, answer.segment_index, answer.text))
        elif isinstance(answer, e.SilentFile):
            said.append((answer.chunk_index, "silent"))
        elif isinstance(answer, e.Problem):
            said.append((answer.chunk_index, answer.code))
    return said


def decoded(pcm: bytes, **changes: Any) -> AudioDecoded:
    return AudioDecoded(pcm=pcm, **changes)


def heard(driver: SessionDriver) -> e.SpeechProbabilities:
    return e.SpeechProbabilities(probabilities=detect(driver.session.take_frames()))


def test_the_segments_of_a_file_are_one_result() -> None:
    driver = started()
    assert reported(driver.chunk(TWO, 0)) == []
    first, second = driver.jobs
    assert reported(driver.recognise(second, "zwei")) == []
    (answer,) = [a for a in driver.recognise(first, "eins") if isinstance(a, e.SegmentText)]
    assert reported([answer]) == [(0, 0, 1, "eins zwei")]
    assert (answer.start_ms, answer.end_ms) == (first.start_ms, second.end_ms)
    assert [result.text for result in driver.kept] == ["zwei", "eins"]


def test_a_silent_file_has_an_empty_result_at_once() -> None:
    driver = started()
    assert reported(driver.chunk(silence(1000), 0)) == [(0, "silent")]
    driver.chunk(speech(400) + silence(900), 1)
    assert reported(driver.chunk(silence(500), 2)) == []  # In order: behind that of chunk 1.
    assert reported(driver.recognise(driver.jobs[0], "a")) == [(1, None, 0, "a"), (2, "silent")]


def test_speech_over_the_end_of_a_file_belongs_to_the_next() -> None:
    driver = started()
    assert reported(driver.chunk(silence(500) + speech(500), 0)) == []
    assert reported(driver.chunk(speech(500) + silence(900), 1)) == []
    (job,) = driver.jobs
    assert reported(driver.recognise(job, "both")) == [(0, "silent"), (1, None, 0, "both")]


def test_without_a_further_file_the_speech_ends_there() -> None:
    driver = started()
    driver.chunk(silence(500) + speech(500), 0)
    assert driver.jobs == []
    driver.tick(2.0)
    assert reported(driver.recognise(driver.jobs[0], "end")) == [(0, None, 0, "end")]


def test_slices_of_a_file_and_raw_audio_have_their_segments() -> None:
    driver = started(files=1)
    driver.chunk(silence(500) + speech(500), 0)
    driver.chunk(speech(500) + silence(900) + speech(400, 2) + silence(900), 1)
    first, second = driver.jobs
    assert reported(driver.recognise(first, "a")) == [(0, "silent"), (1, None, 0, "a")]
    assert reported(driver.recognise(second, "b")) == [(1, None, 1, "b")]


def test_a_failed_segment_is_an_error_and_not_a_second_result() -> None:
    driver = started()
    driver.chunk(TWO, 0)
    first, second = driver.jobs
    failed = result_of(first, None, Failure(code="recognition_failed", message="no"))
    assert reported(driver.feed(failed)) == [(0, "recognition_failed")]
    assert reported(driver.recognise(second, "zwei")) == [(0, None, 1, "zwei")]
    driver.chunk(speech(400) + silence(900), 1)
    failed = result_of(driver.jobs[2], None, Failure(code="recognition_failed", message="no"))
    assert reported(driver.feed(failed)) == [(1, "recognition_failed")]


def test_a_client_that_resumes_gets_each_result_once() -> None:
    driver = started()
    driver.chunk(TWO, 0)
    driver.chunk(TWO, 1)
    driver.chunk(silence(300), 2)
    jobs = driver.jobs
    driver.recognise(jobs[0], "a")
    assert reported(driver.recognise(jobs[1], "b")) == [(0, 0, 1, "a b")]
    driver.feed(e.SegmentWritten(segment_index=1))
    driver.recognise(jobs[2], "c")
    driver.feed(e.Disconnected())
    assert reported(driver.recognise(jobs[3], "d")) == []
    answers = driver.feed(e.Attached(next_segment_index=2))
    assert reported(answers) == [(1, 2, 3, "c d"), (2, "silent")]
    # That answer was not written, and is sent again.
    driver.feed(e.Disconnected())
    assert reported(driver.feed(e.Attached(next_segment_index=2))) == [(1, 2, 3, "c d")]


def test_the_end_of_the_session_completes_its_files() -> None:
    driver = started()
    driver.chunk(silence(500) + speech(500), 0)
    driver.finish()
    answers = driver.recognise(driver.jobs[0], "end")
    assert reported(answers) == [(0, None, 0, "end")]
    assert any(isinstance(answer, e.Finished) for answer in driver.store_all())


def test_texts_of_a_chunk_that_is_still_decoded_wait_for_its_end() -> None:
    for whole, said in ((True, [(0, 0, 1, "a b")]), (False, [(0, None, 0, "a")])):
        driver = started()
        driver.session.handle(e.Chunk(data=b"", chunk_index=0, session_id="s"), 0.0)
        driver.feed(decoded(speech(400) + silence(900), begins_container=True, more=True))
        driver.feed(heard(driver))
        assert driver.session.busy
        assert reported(driver.recognise(driver.jobs[0], "a")) == []
        answers = driver.feed(decoded(speech(400) + silence(900), ends_container=whole))
        answers += driver.feed(heard(driver))
        assert not driver.session.busy
        answers += driver.recognise(driver.jobs[1], "b")
        assert reported(answers)[: len(said)] == said
