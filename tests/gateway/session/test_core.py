import array
import gc
import random
import weakref

import pytest

from gateway.session import events as e
from gateway.session.core import ACK_EVERY_CHUNKS, ACK_EVERY_S, SPEAKER_LABELS_PER_RECORD
from gateway.session.records import CHUNK_DETAILS_PER_RECORD
from gateway.session.segmenter import END_SILENCE
from gateway.session.states import State
from tests.gateway.session_driver import SessionDriver, result_of, silence, speech, texts
from wire.messages import Cancel, Failure, Job
from wire.records import (
    ChunkDetails,
    RecordBody,
    SessionFinished,
    SessionStarted,
    SpeakerLabels,
    parse_body,
)

TWO_WORDS = silence(400) + speech(500) + silence(1000) + speech(700, 2) + silence(1000)


def test_a_session_from_start_to_final_result() -> None:
    driver = SessionDriver()
    assert driver.start() == [e.Started(session_id="s", resume_token="token", next_chunk_index=0)]
    assert driver.chunk(TWO_WORDS, 0) == [e.ChunkReceived(chunk_index=0)]
    first, second = driver.jobs
    assert (first.seq, second.seq) == (0, 1)
    assert first.end_ms <= second.start_ms
    assert speech(500) in first.pcm and speech(700, 2) in second.pcm
    assert driver.finish() == []
    assert driver.recognise(second, "zwei") == []
    assert texts(driver.recognise(first, "eins")) == ["eins", "zwei"]
    assert _state(driver) is State.CONFIRMING
    assert driver.store_all() == [
        e.Finished(session_id="s", text="eins zwei", duration_ms=3600, chunk_count=1, stored=True)
    ]
    assert _state(driver) is State.DONE


def test_the_final_result_names_fields_of_chunks_that_have_no_effect() -> None:
    driver = SessionDriver()
    driver.start()
    for index in range(2):
        driver.feed(
            e.Chunk(
                data=silence(100), chunk_index=index, session_id="s", ignored_fields=("last", "x")
            )
        )
    driver.finish()
    (final,) = driver.store_all()
    assert isinstance(final, e.Finished)
    message = "fields of a chunk without effect: last, x"
    assert final.warnings == (e.SessionWarning(code="field_ignored", message=message),)


def test_the_client_ends_an_utterance() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(silence(400) + speech(500))
    assert driver.jobs == []
    assert driver.feed(e.EndUtterance()) == [
        e.SpeechEnded(end_ms=900, next_segment_index=1, requested=True)
    ]
    (job,) = driver.jobs
    assert job.end_ms == 900
    # In silence as well, and what follows does not reach back.
    driver.chunk(speech(500, 2))
    assert driver.feed(e.EndUtterance()) == [
        e.SpeechEnded(end_ms=1_400, next_segment_index=2, requested=True)
    ]
    assert driver.jobs[1].start_ms == 900 and driver.jobs[1].pcm == speech(500, 2) + END_SILENCE
    assert driver.feed(e.EndUtterance()) == [
        e.SpeechEnded(end_ms=1_400, next_segment_index=2, requested=True)
    ]


def test_the_client_discards_an_utterance() -> None:
    driver = SessionDriver()
    driver.start(partials=True)
    driver.chunk(speech(900))
    (partial,) = driver.jobs
    assert partial.partial
    assert driver.feed(e.EndUtterance(discard=True)) == [
        e.SpeechEnded(end_ms=900, next_segment_index=0, requested=True)
    ]
    assert driver.recognise(partial, "gone") == []
    driver.chunk(speech(500, 2) + silence(1_000))
    assert [job.pcm[:2] for job in driver.jobs if not job.partial] == [speech(1, 2)[:2]]


def test_starts_and_ends_of_speech_are_reported_to_the_client() -> None:
    driver = SessionDriver()
    driver.start(speech_events=True)
    reported = driver.chunk(silence(416) + speech(32)) + driver.chunk(speech(32))
    assert reported == [e.SpeechStarted(start_ms=116)]
    assert driver.chunk(speech(320)) == []
    (ended,) = driver.chunk(silence(700))
    assert ended == e.SpeechEnded(end_ms=driver.jobs[0].end_ms, next_segment_index=1)
    # A click is no speech.
    assert driver.chunk(silence(4) + speech(32) + silence(1_000)) == []
    # Two utterances in one chunk, the second of which the client ends.
    one = speech(320) + silence(1_000)
    assert [type(answer) for answer in driver.chunk(one + speech(320))] == [
        *(e.SpeechStarted, e.SpeechEnded, e.SpeechStarted),
    ]
    (ended,) = driver.feed(e.EndUtterance())
    assert isinstance(ended, e.SpeechEnded) and ended.requested


def test_speech_that_is_cut_at_the_limit_has_not_ended() -> None:
    driver = SessionDriver()
    driver.start(speech_events=True)
    assert driver.chunk(speech(25_000)) == [e.SpeechStarted(start_ms=0)]
    assert len(driver.jobs) == 1
    (ended,) = driver.chunk(silence(1_000))
    assert isinstance(ended, e.SpeechEnded) and ended.next_segment_index == 2


def test_silence_behind_a_cut_at_the_limit_ends_speech() -> None:
    driver = SessionDriver()
    driver.start(speech_events=True)
    # The limit of 20 s is reached in the pause, whose rest has no speech.
    driver.chunk(speech(19_500) + silence(480))
    assert [type(answer) for answer in driver.chunk(silence(700))] == [e.SpeechEnded]
    assert len(driver.jobs) == 1


PAUSES = speech(512) + silence(1504) + speech(704) + silence(800) + speech(320) + silence(1600)


@pytest.mark.parametrize("step_ms", [20, 320, 10_000])
def test_a_long_silence_is_reported_once_whatever_the_chunks(step_ms: int) -> None:
    driver, step = SessionDriver(), 32 * step_ms
    driver.start(speech_events=True, long_silence_ms=1_000)
    for place in range(0, len(PAUSES), step):
        driver.chunk(PAUSES[place : place + step])
    driver.chunk(silence(5_000))
    reported = [a for a in driver.answers if isinstance(a, e.SpeechStarted | e.LongSilence)]
    assert [getattr(answer, "next_segment_index", None) for answer in reported] == [
        *(None, 1, None, None, 3)
    ]


def test_a_session_leaves_nothing_for_the_garbage_collector() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS, 0)
    for job in driver.jobs:
        driver.recognise(job, "eins")
    driver.finish()
    driver.store_all()
    gone = weakref.ref(driver.session)
    gc.disable()
    try:
        del driver
        assert gone() is None
    finally:
        gc.enable()


def _state(driver: SessionDriver) -> State:
    return driver.session.state


@pytest.mark.parametrize("seed", range(30))
def test_the_result_does_not_depend_on_chunk_sizes(seed: int) -> None:
    whole = SessionDriver()
    whole.start()
    whole.chunk(TWO_WORDS)
    whole.finish()
    rng, driver, place = random.Random(seed), SessionDriver(), 0
    driver.start()
    while place < len(TWO_WORDS):
        step = 2 * rng.choice([1, 160, 320, 1600, 5000, rng.randrange(1, 30_000)])
        driver.chunk(TWO_WORDS[place : place + step])
        place += step
    driver.finish()
    assert [(j.start_ms, j.end_ms, j.pcm) for j in driver.jobs] == [
        (j.start_ms, j.end_ms, j.pcm) for j in whole.jobs
    ]


def test_speech_up_to_the_very_end_is_flushed_by_finish() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(speech(1234))
    assert driver.jobs == []
    driver.finish()
    (job,) = driver.jobs
    assert job.pcm == speech(1234) + END_SILENCE


def test_records_hold_start_chunks_and_end() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(silence(100))
    driver.chunk(silence(200))
    driver.finish()
    bodies = [parse_body(record.body) for record in driver.records]
    assert [type(body) for body in bodies] == [SessionStarted, ChunkDetails, SessionFinished]
    assert [record.record_seq for record in driver.records] == [0, 1, 2]
    details = bodies[1]
    assert isinstance(details, ChunkDetails)
    assert [(c.chunk_index, c.offset_ms, c.duration_ms) for c in details.chunks] == [
        (0, 0, 100),
        (1, 100, 200),
    ]
    finished = bodies[2]
    assert isinstance(finished, SessionFinished)
    assert finished.started == bodies[0]
    assert (finished.status, finished.chunk_count, finished.duration_ms) == ("completed", 2, 300)


def test_chunk_details_are_sent_in_batches() -> None:
    driver = SessionDriver()
    driver.start()
    for _ in range(CHUNK_DETAILS_PER_RECORD):
        driver.chunk(silence(20))
    assert isinstance(parse_body(driver.records[-1].body), ChunkDetails)


# ------------------------------------------------------------------------------------ chunk indexes


def test_answers_to_repeated_conflicting_and_missing_chunks() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(speech(100), 0)
    assert driver.chunk(speech(100), 0) == [e.ChunkReceived(chunk_index=0)]
    assert driver.session.duration_ms == 100
    (conflict,) = driver.chunk(speech(50), 0)
    assert isinstance(conflict, e.Problem) and conflict.code == "seq_conflict"
    (gap,) = driver.chunk(speech(100), 2)
    assert isinstance(gap, e.Problem)
    assert (gap.code, gap.chunk_index, gap.expected_chunk_index) == ("expected_seq", 2, 1)
    assert driver.chunk(speech(100), 1) == [e.ChunkReceived(chunk_index=1)]


def test_binary_frames_are_acknowledged_cumulatively() -> None:
    driver = SessionDriver()
    driver.start()
    for _ in range(ACK_EVERY_CHUNKS - 1):
        assert driver.chunk(silence(20)) == []
    assert driver.chunk(silence(20)) == [e.ChunkReceived(chunk_index=ACK_EVERY_CHUNKS - 1)]
    driver.chunk(silence(20))
    assert driver.tick(ACK_EVERY_S - 0.1) == []
    assert driver.tick(ACK_EVERY_S) == [e.ChunkReceived(chunk_index=ACK_EVERY_CHUNKS)]
    assert driver.tick(ACK_EVERY_S * 2) == []
    driver.chunk(silence(20))
    assert driver.finish() == [e.ChunkReceived(chunk_index=ACK_EVERY_CHUNKS + 1)]


def test_the_id_of_another_session_is_refused() -> None:
    driver = SessionDriver()
    driver.start()
    (problem,) = driver.feed(e.Chunk(data=b"", chunk_index=0, session_id="other"))
    assert isinstance(problem, e.Problem) and problem.code == "bad_message"
    (problem,) = driver.feed(e.Finish(session_id="other"))
    assert isinstance(problem, e.Problem) and problem.code == "bad_message"
    assert driver.session.state is State.ACTIVE


# -------------------------------------------------------------------------------------------- modes


def test_mode_chunk_makes_one_utterance_of_each_chunk_silent_or_not() -> None:
    driver = SessionDriver()
    driver.start("chunk")
    driver.chunk(speech(300))
    driver.chunk(silence(200))
    driver.chunk(b"")
    assert [(j.start_ms, j.end_ms, j.last_chunk_index) for j in driver.jobs] == [
        (0, 300, 0),
        (300, 500, 1),
        (500, 500, 2),
    ]
    driver.finish()
    for job in reversed(driver.jobs):
        driver.recognise(job, f"t{job.seq}")
    assert texts(driver.answers) == ["t0", "t1", "t2"]
    indexes = [a.chunk_index for a in driver.answers if isinstance(a, e.SegmentText)]
    assert indexes == [0, 1, 2]


def test_mode_chunk_limits_the_duration_of_a_chunk() -> None:
    driver = SessionDriver(chunk_utterance_ms_max=1000)
    driver.start("chunk")
    driver.chunk(speech(1000))
    answers = driver.chunk(speech(1001))
    assert [a.code for a in answers if isinstance(a, e.Problem)] == ["audio_too_long"]
    assert len(driver.jobs) == 1


def test_a_file_ending_in_silence_ends_its_utterance() -> None:
    driver = SessionDriver()
    driver.container_ends = {0, 1}
    driver.start()
    driver.chunk(speech(500) + silence(240))
    (job,) = driver.jobs
    assert job.pcm.startswith(speech(500)) and 600 <= job.end_ms <= 660
    driver.chunk(speech(500) + silence(240))
    assert len(driver.jobs) == 2


def test_a_file_cut_inside_a_word_is_joined_to_the_next() -> None:
    driver = SessionDriver()
    driver.container_ends = {0, 1}
    driver.start()
    driver.chunk(speech(500))
    driver.chunk(speech(300) + silence(200))
    driver.finish()
    (job,) = driver.jobs
    assert job.pcm.startswith(speech(800))


# ------------------------------------------------------------------------------------------ results


def test_partials_are_sent_on_request_and_in_order() -> None:
    driver = SessionDriver(partial_every_ms=600)
    driver.start(partials=True)
    partials: list[Job] = []
    for text in ("zwei", "zwei drei", "zwei drei vier"):
        for _ in range(10):
            driver.chunk(speech(100))
        # One at a time.
        *_, partial = [job for job in driver.jobs if job.partial]
        assert partial.seq == 0 and partial not in partials
        partials.append(partial)
        if len(partials) < 3:
            answer = e.PartialText(segment_index=0, text=text, end_ms=partial.end_ms)
            assert driver.recognise(partial, text) == [answer]
    assert driver.recognise(partials[0], "zwei") == []
    driver.finish()
    assert driver.recognise(partials[2], "zwei drei vier") == []
    quiet = SessionDriver()
    quiet.start()
    quiet.chunk(speech(3000))
    assert quiet.jobs == []


def test_a_partial_result_without_a_text_is_not_sent() -> None:
    driver = SessionDriver(partial_every_ms=600)
    driver.start(partials=True)
    sent = []
    for text in ("", "zwei", "", "zwei drei"):
        for _ in range(10):
            driver.chunk(speech(100))
        sent += driver.recognise(driver.jobs[-1], text)
    assert [answer.text for answer in sent if isinstance(answer, e.PartialText)] == [
        "zwei",
        "zwei drei",
    ]
    assert driver.counts == [e.Count(discarded="result", reason="partial_without_text")] * 2


def test_a_failed_segment_is_sent_in_order_and_stored() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS)
    driver.finish()
    first, second = driver.jobs
    driver.recognise(second, "zwei")
    failure = Failure(code="chunk_failed", message="three attempts failed")
    answers = driver.feed(result_of(first, None, failure))
    assert [type(a) for a in answers] == [e.Problem, e.SegmentText]
    assert isinstance(answers[0], e.Problem)
    assert (answers[0].code, answers[0].segment_index) == ("chunk_failed", 0)
    assert [r.seq for r in driver.kept] == [1, 0]
    (finished,) = driver.store_all()
    assert isinstance(finished, e.Finished) and finished.text == "zwei"


@pytest.mark.parametrize("finished", [False, True])
def test_a_session_that_is_given_up_has_its_end_stored(finished: bool) -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS)
    driver.recognise(driver.jobs[0], "eins")
    if finished:
        driver.finish()
    failure = Failure(code="internal_error", message="a fault")
    assert driver.feed(e.Released(failure=failure)) == []
    assert driver.others == [Cancel(session_id="s")]
    body = parse_body(driver.records[-1].body)
    assert isinstance(body, SessionFinished)
    assert (body.status, body.failure, body.text) == ("failed", failure, "eins")
    assert (body.segment_count, body.duration_ms) == (1, 3600)


def test_a_recorded_end_is_not_replaced_by_a_failure() -> None:
    driver = SessionDriver()
    driver.start()
    driver.finish()
    count = len(driver.records)
    driver.feed(e.Released(failure=Failure(code="internal_error", message="a fault")))
    assert len(driver.records) == count and _state(driver) is State.RELEASED


@pytest.mark.parametrize(
    ("found", "is_warned"),
    [(("", ""), True), (("", "zwei"), False), (("", None), False), ((), False)],
)
def test_speech_without_a_text_is_a_warning(found: tuple[str | None, ...], is_warned: bool) -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS if found else silence(1000))
    driver.finish()
    failure = Failure(code="chunk_failed", message="three attempts failed")
    for job, text in zip(driver.jobs, found, strict=True):
        result = result_of(job, text, failure if text is None else None)
        driver.feed(result)
    final = driver.store_all()[-1]
    assert isinstance(final, e.Finished)
    assert [warning.code for warning in final.warnings] == ["no_text"] * is_warned


def test_a_silent_chunk_in_mode_chunk_is_no_speech_without_a_text() -> None:
    driver = SessionDriver()
    driver.start("chunk")
    driver.chunk(silence(1000))
    driver.finish()
    driver.recognise(driver.jobs[0], "")
    final = driver.store_all()[-1]
    assert isinstance(final, e.Finished) and final.warnings == ()


def test_stored_is_false_when_commit_takes_too_long() -> None:
    driver = SessionDriver(stored_wait_s=2.0)
    driver.start()
    driver.finish()
    assert driver.tick(1.9) == []
    (finished,) = driver.tick(2.0)
    assert isinstance(finished, e.Finished) and not finished.stored
    assert driver.store_all() == []


def test_a_new_broker_epoch_sends_unanswered_jobs_again() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS)
    first, second = driver.jobs
    driver.recognise(first, "eins")
    driver.jobs.clear()
    driver.feed(e.JobsMayBeLost())
    assert [(j.seq, j.pcm) for j in driver.jobs] == [(1, second.pcm)]


def test_a_session_ends_without_any_answer_from_the_broker() -> None:
    driver = SessionDriver(segment_deadline_ms=5_000)
    driver.start()
    driver.chunk(TWO_WORDS)
    driver.finish()
    answers = driver.tick(7.1)
    assert [a.code for a in answers if isinstance(a, e.Problem)] == ["deadline", "deadline"]
    assert driver.session.state is State.CONFIRMING
    body = parse_body(driver.records[-1].body)
    assert isinstance(body, SessionFinished) and body.status == "failed"


def test_reading_stops_while_too_much_audio_awaits_results() -> None:
    driver = SessionDriver(unanswered_audio_ms_max=800)
    driver.start()
    driver.chunk(TWO_WORDS)
    assert not driver.session.wants_audio
    driver.recognise(driver.jobs[0], "eins")
    driver.recognise(driver.jobs[1], "zwei")
    assert driver.session.wants_audio


# ---------------------------------------------------------------------------------------- bad audio


def test_bad_audio_is_an_answer_and_the_session_continues() -> None:
    driver = SessionDriver()
    driver.failing = {0}
    driver.start()
    answers = driver.chunk(b"junk", 0)
    assert [type(a) for a in answers] == [e.ChunkReceived, e.Problem]
    driver.chunk(speech(500), 1)
    driver.finish()
    (job,) = driver.jobs
    assert job.pcm == speech(500) + END_SILENCE


def test_audio_before_a_fault_is_recognised() -> None:
    driver = SessionDriver()
    driver.failing = {1}
    driver.audio_before_fault = speech(300)
    driver.start()
    driver.chunk(speech(500))
    driver.chunk(b"broken from here")
    driver.finish()
    (job,) = driver.jobs
    assert job.pcm == speech(800) + END_SILENCE
    assert driver.session.chunk_count == 2


def test_noise_that_was_taken_for_speech_is_not_recognised() -> None:
    driver = SessionDriver()
    driver.failing, driver.was_noise = {1}, True
    driver.start(speech_events=True)
    driver.chunk(speech(500))
    answers = driver.chunk(b"it is noise")
    assert [type(answer) for answer in answers] == [e.Problem, e.SpeechEnded]
    driver.chunk(speech(600))
    driver.finish()
    (job,) = driver.jobs
    assert job.pcm == speech(600) + END_SILENCE


@pytest.mark.parametrize(("encoded", "status"), [(True, "failed"), (False, "completed")])
def test_a_session_of_one_file_fails_with_it(encoded: bool, status: str) -> None:
    """Others go on with the next file."""
    driver = SessionDriver()
    driver.failing = {1}
    driver.start(encoded=encoded)
    driver.chunk(speech(500))
    driver.chunk(b"broken from here")
    driver.finish()
    driver.recognise(driver.jobs[0], "eins")
    ending = parse_body(driver.records[-1].body)
    assert isinstance(ending, SessionFinished)
    assert (ending.status, ending.text) == (status, "eins")
    assert (ending.failure is not None) is encoded
    if ending.failure is not None:
        assert (ending.failure.code, ending.failure.message) == ("bad_audio", "no audio")


def test_a_session_of_which_nothing_could_be_decoded_has_failed() -> None:
    driver = SessionDriver()
    driver.failing = {0}
    driver.start()
    driver.chunk(b"no audio")
    driver.finish()
    ending = parse_body(driver.records[-1].body)
    assert isinstance(ending, SessionFinished)
    assert ending.status == "failed"
    assert ending.failure == Failure(code="bad_audio", message="no audio")


# ------------------------------------------------------------------------------------- disconnects


def test_a_disconnect_before_start_leaves_nothing() -> None:
    driver = SessionDriver()
    driver.feed(e.Disconnected())
    assert driver.session.state is State.DONE
    assert driver.records == [] and driver.jobs == []


def test_a_deleted_session_ends_at_once() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS)
    (problem,) = driver.feed(e.Deleted())
    assert isinstance(problem, e.Problem) and problem.code == "deleted"
    assert [type(a) for a in driver.others] == [Cancel, e.Close]
    assert driver.session.state is State.RELEASED
    with pytest.raises(AssertionError, match=r"Result in state released, after: .* Chunk,"):
        driver.recognise(driver.jobs[0], "eins")


# ---------------------------------------------------------------------------------------- speakers

ANN, BOB = array.array("f", [1, 0, 0]).tobytes(), array.array("f", [0, 1, 0]).tobytes()


def _turns(driver: SessionDriver, *embeddings: bytes) -> list[int | None]:
    """The labels that the client gets at once, if these voices speak 1.5 s each."""
    driver.start(speakers=True)
    driver.chunk(b"".join(speech(1500) + silence(1000) for _ in embeddings), 0)
    assert len(driver.jobs) == len(embeddings)
    answers = [
        answer
        for job, embedding in zip(driver.jobs, embeddings, strict=True)
        for answer in driver.recognise(job, "text", embedding)
    ]
    return [answer.speaker for answer in answers if isinstance(answer, e.SegmentText)]


def _recorded(driver: SessionDriver) -> dict[int, int]:
    labels: dict[int, int] = {}
    for body in _bodies(driver):
        if isinstance(body, SpeakerLabels):
            labels |= dict(enumerate(body.speakers, body.first_segment_index))
    return labels


def _bodies(driver: SessionDriver) -> list[RecordBody]:
    return [parse_body(record.body) for record in driver.records]


def test_segments_have_speakers_if_they_are_asked_for() -> None:
    driver = SessionDriver()
    assert _turns(driver, ANN, BOB, b"", ANN) == [1, 2, None, 1]
    assert all(job.speakers for job in driver.jobs)
    driver.finish()
    (final,) = driver.store_all()
    assert isinstance(final, e.Finished) and final.speakers == (1, 2, None, 1)
    assert _recorded(driver) == {0: 1, 1: 2, 2: 0, 3: 1}
    last = _bodies(driver)[-1]
    assert isinstance(last, SessionFinished) and last.status == "completed"


def test_without_asking_there_are_no_speakers() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(TWO_WORDS, 0)
    assert not any(job.speakers for job in driver.jobs)
    answers = [a for job in driver.jobs for a in driver.recognise(job, "text", ANN)]
    assert [a.speaker for a in answers if isinstance(a, e.SegmentText)] == [None, None]
    driver.finish()
    (final,) = driver.store_all()
    assert isinstance(final, e.Finished) and final.speakers is None
    assert _recorded(driver) == {}


def test_partials_need_no_embedding() -> None:
    driver = SessionDriver()
    driver.start(partials=True, speakers=True)
    driver.chunk(speech(2_000), 0)
    assert [job.partial for job in driver.jobs] == [True]
    assert not driver.jobs[0].speakers


def test_the_end_corrects_labels_in_the_final_result_and_in_storage() -> None:
    loud, low = (array.array("f", [1, 0, high]).tobytes() for high in (0.9, -0.9))
    driver = SessionDriver()
    # Ann's first two utterances differ. The others connect them.
    assert _turns(driver, loud, low, BOB, ANN, ANN, ANN) == [1, 2, 3, 1, 1, 1]
    driver.finish()
    (final,) = driver.store_all()
    assert isinstance(final, e.Finished) and final.speakers == (1, 1, 3, 1, 1, 1)
    assert _recorded(driver) == dict(enumerate(final.speakers))


def test_a_client_that_resumes_gets_corrected_labels() -> None:
    driver = SessionDriver()
    _turns(driver, ANN, BOB)
    driver.feed(e.Disconnected())
    driver.session._speakers.labels[1] = 5  # type: ignore[union-attr]
    answers = driver.feed(e.Attached(next_segment_index=0))
    assert [a.speaker for a in answers if isinstance(a, e.SegmentText)] == [1, 5]


def test_a_voice_print_is_neither_kept_nor_recorded_with_a_segment() -> None:
    driver = SessionDriver()
    _turns(driver, ANN, BOB)
    assert all(not result.embedding for result in driver.kept)
    assert all(not result.embedding for result in driver.session.delivery.results)


def test_a_new_speaker_is_recorded_at_once_and_other_labels_in_batches() -> None:
    driver = SessionDriver()
    _turns(driver, ANN, *[ANN] * SPEAKER_LABELS_PER_RECORD, BOB, BOB)
    records = [body for body in _bodies(driver) if isinstance(body, SpeakerLabels)]
    assert [len(record.speakers) for record in records] == [1, SPEAKER_LABELS_PER_RECORD, 1]
    assert [len(record.centroids) for record in records] == [1, 1, 2]
    driver.finish()
    # The session has ended: nobody needs the voices.
    last = [body for body in _bodies(driver) if isinstance(body, SpeakerLabels)][-1]
    assert last.speakers == (2,) and last.centroids == ()


def test_an_interrupted_session_records_its_voices() -> None:
    driver = SessionDriver()
    _turns(driver, ANN, ANN)
    driver.feed(e.Interrupted())
    last = [body for body in _bodies(driver) if isinstance(body, SpeakerLabels)][-1]
    assert last.first_segment_index == 1 and [c.speaker for c in last.centroids] == [1]


def test_an_unusable_embedding_is_counted() -> None:
    driver = SessionDriver()
    assert _turns(driver, ANN, b"12345678", BOB + BOB, BOB) == [1, None, None, 2]
    reasons = [count.reason for count in driver.counts if count.discarded == "embedding"]
    assert reasons == ["dimension", "dimension"]
