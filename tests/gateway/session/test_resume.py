"""A resumed session makes the same utterances as one that was never interrupted."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from gateway.session import events as e
from gateway.session.core import Session
from gateway.session.resume import ResumePoint, resume_point_of, text_of
from gateway.session.states import State
from tests.gateway.session_driver import (
    ENDPOINTER,
    LIMITS,
    SessionDriver,
    result_of,
    silence,
    speech,
    texts,
)
from wire.messages import Failure, Job, Result
from wire.records import SessionFinished, SessionStarted, SpeakerCentroid, parse_body


def said(rng: random.Random) -> bytes:
    """Words of different loudness, with pauses that end utterances and some that don't."""
    pieces = []
    for number in range(8):
        pieces += [
            speech(rng.randint(200, 2500), 1 + number),
            silence(rng.choice([200, 700, 1500])),
        ]
    return b"".join(pieces)


def row(job: Job, text: str = "t") -> Result:
    return job.result(text=text, worker_id="w", attempt=1, queue_ms=2, infer_ms=3)


def stored(rows: list[Result], status: str = "active") -> dict[str, Any]:
    return {
        "session_id": "s",
        "status": status,
        "text": "t t",
        "duration_ms": 1234,
        "chunk_count": 9,
        "model": "zh",
        "created_at_ms": 5,
        "has_all_segments": True,
        "segments": rows,
        "speakers": {},
        "centroids": (),
    }


def resumed_driver(resume_point: ResumePoint) -> SessionDriver:
    driver = SessionDriver()
    driver.session = Session(
        LIMITS,
        ENDPOINTER,
        resume_token="token",
        client="",
        wall_offset_ms=0,
        resume_point=resume_point,
    )
    return driver


def places(jobs: list[Job]) -> list[tuple[int, int, int, bytes]]:
    return [(job.seq, job.start_ms, job.end_ms, job.pcm) for job in jobs]


def chunked(rng: random.Random, audio: bytes) -> list[bytes]:
    chunks = []
    while audio:
        size = 2 * rng.choice([160, 1600, 3200, rng.randrange(1, 9_000)])
        chunks.append(audio[:size])
        audio = audio[size:]
    return chunks


@pytest.mark.parametrize("seed", range(40))
def test_resuming_at_any_point_does_not_change_the_transcript(seed: int) -> None:
    rng = random.Random(seed)
    chunks = chunked(rng, said(rng))
    clean = {n for n in range(len(chunks)) if rng.random() < 0.7} if seed % 2 else None
    whole = SessionDriver()
    whole.clean_starts = clean
    whole.start()
    for chunk in chunks:
        whole.chunk(chunk)
    whole.finish()
    kept = rng.randrange(len(whole.jobs))
    resume_point = resume_point_of(stored([row(job) for job in whole.jobs[:kept]]), 1)
    assert len(resume_point.results) == kept
    after = resumed_driver(resume_point)
    after.clean_starts = clean
    (answer, *missed) = after.start()
    assert isinstance(answer, e.Resumed) and len(texts(missed)) == kept
    for chunk in chunks[answer.next_chunk_index :]:
        after.chunk(chunk)
    after.finish()
    assert places(after.jobs) == places(whole.jobs[kept:])
    assert after.session.duration_ms == whole.session.duration_ms
    assert after.session.chunk_count == len(chunks)
    assert {job.generation for job in after.jobs} <= {1}
    for job in after.jobs:
        after.recognise(job, "t")
    assert len(after.session.delivery.results) == len(whole.jobs)


def test_a_resumed_session_keeps_its_results_once() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk((speech(500) + silence(1000)) * 4)
    point = resume_point_of(stored([row(job) for job in driver.jobs]), 1)
    after = resumed_driver(point)
    after.start()
    assert list(after.session.delivery.results) == list(point.results) != []
    kept = after.session.resume_point
    assert (kept.results, kept.generation, kept.first_sample) == ((), 1, point.first_sample)


def test_only_segments_before_a_gap_or_a_provisional_one_count() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk((speech(500) + silence(1000)) * 4)
    rows = [row(job) for job in driver.jobs]
    assert len(resume_point_of(stored(rows), 1).results) == 4
    assert len(resume_point_of(stored([*rows[:2], rows[3]]), 1).results) == 2
    assert (
        len(resume_point_of(stored([*rows[:3], replace(rows[3], provisional=True)]), 1).results)
        == 3
    )
    failed = driver.jobs[0].result(error=Failure(code="deadline", message="m"))
    (result,) = resume_point_of(stored([failed]), 1).results
    assert result.error is not None and result.error.code == "deadline"


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_session_with_a_stored_end_and_a_missing_segment_continues(status: str) -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk((speech(500) + silence(1000)) * 2)
    found = {**stored([row(driver.jobs[0])], status), "text": "t"}
    assert resume_point_of(found, 1).final is not None
    resume_point = resume_point_of({**found, "has_all_segments": False}, 1)
    assert resume_point.final is None and len(resume_point.results) == 1


@pytest.mark.parametrize("text", [None, "", "one 0 one 1"])
def test_a_text_too_long_for_its_record_is_joined_from_the_segments(text: str | None) -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk((speech(500) + silence(1000)) * 2)
    rows = [row(job, f"one {job.seq}") for job in driver.jobs]
    found = {**stored(rows, "completed"), "text": text}
    final = resume_point_of(found, 0).final
    assert final is not None and final.text == "one 0 one 1"
    assert text_of(found) == (text or final.text)
    assert text_of({**found, "status": "active"}) == (text or "")


def test_a_session_whose_end_spells_a_segment_differently_continues() -> None:
    """The gateway has stored its copy of the segment after this, or was killed before it."""
    driver = SessionDriver()
    driver.start()
    driver.chunk((speech(500) + silence(1000)) * 2)
    rows = [row(job) for job in driver.jobs]
    assert resume_point_of(stored(rows, "completed"), 1).final is not None
    respelled = [rows[0], replace(rows[1], text="tee")]
    resume_point = resume_point_of(stored(respelled, "completed"), 1)
    assert resume_point.final is None and len(resume_point.results) == 2


def test_the_open_utterance_at_a_disconnection_is_provisional() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(speech(500) + silence(1000) + speech(300))
    driver.feed(e.Interrupted())
    assert [job.provisional for job in driver.jobs] == [False, True]
    assert not driver.session.resumable


def test_a_complete_session_only_repeats_its_final_result() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk((speech(500) + silence(1000)) * 2)
    after = resumed_driver(
        resume_point_of(stored([row(job) for job in driver.jobs], "completed"), 0)
    )
    resumed = after.start()
    assert resumed[0] == e.Resumed(
        session_id="s", resume_token="token", next_chunk_index=9, next_segment_index=0
    )
    assert texts(resumed) == ["t", "t"]
    assert after.session.state is State.DONE
    assert after.finish() == [
        e.Finished(session_id="s", text="t t", duration_ms=1234, chunk_count=9, stored=True)
    ]
    assert after.records == [] and after.jobs == []


def test_mode_chunk_recognises_no_chunk_twice() -> None:
    driver = SessionDriver()
    driver.start("chunk")
    for length_ms in (300, 100, 400):
        driver.chunk(speech(length_ms))
    after = resumed_driver(resume_point_of(stored([row(job) for job in driver.jobs[:2]]), 1))
    (answer, *_) = after.start("chunk")
    assert isinstance(answer, e.Resumed)
    for length_ms in (300, 100, 400)[answer.next_chunk_index :]:
        after.chunk(speech(length_ms))
    assert places(after.jobs) == places(driver.jobs[2:])


# --------------------------------------------------------------------- answers, and stored records


def test_of_two_possible_results_the_delivered_one_is_stored() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(speech(500) + silence(1000))
    (job,) = driver.jobs
    driver.feed(e.JobsMayBeLost())
    kept = driver.session.handle(result_of(job, "eins"), 1.0)
    assert e.KeepResult(result=result_of(job, "eins"), contested=True, waited_s=1.0) in kept


@pytest.mark.parametrize("ends", ["client stays away", "gateway stops"])
@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("anew", [False, True])
def test_a_taken_over_session_without_new_audio_stores_no_end(
    ends: str, heard: bool, anew: bool
) -> None:
    """The previous gateway may have stored more meanwhile. An end from this gateway would replace
    it, and so would a second start."""
    resumed = ResumePoint(generation=1, resumed=True, next_chunk_index=3)
    driver = resumed_driver(ResumePoint(generation=1) if anew else resumed)
    driver.start()
    assert driver.records == []
    if heard:
        driver.chunk(speech(500))
    driver.feed(e.Disconnected())
    if ends == "gateway stops":
        driver.feed(e.Interrupted())
    driver.tick(LIMITS.resume_wait_s)
    for job in driver.jobs:
        driver.recognise(job, "eins")
    bodies = [parse_body(record.body) for record in driver.records]
    assert any(isinstance(body, SessionFinished) for body in bodies) == heard
    assert any(isinstance(body, SessionStarted) for body in bodies) == (heard and anew)
    assert heard or driver.records == []
    driver.store_all()
    if not driver.session.over:
        driver.tick(LIMITS.resume_wait_s + LIMITS.stored_wait_s)
    assert driver.session.state is State.DONE


# ---------------------------------------------------------------------------------------- speakers


def _labels(driver: SessionDriver, answers: list[e.Answer]) -> list[int | None]:
    return [answer.speaker for answer in answers if isinstance(answer, e.SegmentText)]


def _resumed_with_speakers(state: dict[str, Any]) -> tuple[SessionDriver, list[Job]]:
    driver = resumed_driver(resume_point_of(state, 1))
    driver.start(speakers=True)
    driver.chunk(turns(4), 0)
    return driver, driver.jobs


def turns(count: int) -> bytes:
    return b"".join(speech(1500) + silence(1000) for _ in range(count))


def _stored_turns() -> dict[str, Any]:
    """Three segments of two speakers, the last of which was not stored."""
    driver = SessionDriver()
    driver.start(speakers=True)
    driver.chunk(turns(3), 0)
    return {**stored([row(job) for job in driver.jobs[:2]]), "speakers": {0: 1, 1: 2, 2: 3}}


def voice(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def centroid(speaker: int, *values: float) -> SpeakerCentroid:
    return SpeakerCentroid(speaker=speaker, weight_ms=3_000, vector=voice(*values))


def test_another_gateway_recognises_the_speakers() -> None:
    voices = (centroid(1, 1, 0, 0), centroid(2, 0, 1, 0), centroid(3, 0, 0, 1))
    driver, jobs = _resumed_with_speakers({**_stored_turns(), "centroids": voices})
    answers = driver.recognise(jobs[0], "t", voice(0, 0, 1))
    answers += driver.recognise(jobs[1], "t", voice(0, 1, 0))
    assert _labels(driver, answers)[-2:] == [3, 2]


def test_without_their_voices_another_gateway_gives_no_label_again() -> None:
    """Not even that of a segment whose row was not stored: its client may have it."""
    driver, jobs = _resumed_with_speakers(_stored_turns())
    answers = driver.recognise(jobs[0], "t", voice(0, 0, 1))
    answers += driver.recognise(jobs[1], "t", voice(0, 1, 0))
    assert _labels(driver, answers)[-2:] == [4, 5]


def test_a_client_that_resumes_gets_stored_labels() -> None:
    driver = resumed_driver(resume_point_of(_stored_turns(), 1))
    start = e.Start(
        session_id="s",
        user_id="u",
        mode="auto",
        sample_rate_hz=16_000,
        language="",
        hotwords=(),
        partials=False,
        resume_token="token",
        next_segment_index=0,
    )
    # The session has speakers although this start does not say so again.
    assert _labels(driver, driver.feed(start)) == [1, 2]
    driver.chunk(turns(3), 0)
    assert driver.jobs[0].speakers


def test_a_complete_session_has_its_speakers() -> None:
    state = {**_stored_turns(), "status": "completed"}
    for labels, asked, found in (
        (state["speakers"], False, (1, 2)),
        ({}, True, (None, None)),  # They were lost.
        ({}, False, None),
    ):
        driver = resumed_driver(resume_point_of({**state, "speakers": labels}, 1))
        driver.start(speakers=asked)
        (final,) = [a for a in driver.finish() if isinstance(a, e.Finished)]
        assert final.speakers == found
