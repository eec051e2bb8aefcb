"""How audio, detection and file boundaries work together; the endpointer itself has its own
tests."""

from __future__ import annotations

import numpy as np

from gateway.audio.timeline import AudioDecoded
from gateway.session import events as e
from gateway.session.events import Mode
from gateway.session.segmenter import END_SILENCE, CutUtterance, Segmenter
from tests.gateway.session_driver import ENDPOINTER, LIMITS, SessionDriver, detect, silence, speech


class Cutting:
    def __init__(self, mode: Mode = "auto") -> None:
        self.segmenter = Segmenter(mode, ENDPOINTER, LIMITS)
        self.chunks = 0

    def add(
        self, pcm: bytes, *, starts: bool = False, ends: bool = False, now_s: float = 0.0
    ) -> list[CutUtterance]:
        audio = AudioDecoded(tail=b"", pcm=pcm, starts_container=starts, ends_container=ends)
        self.segmenter.chunk_received()
        self.segmenter.append(self.chunks, audio)
        self.chunks += 1
        return self._take(now_s)

    def finish(self) -> list[CutUtterance]:
        self.segmenter.finish(b"")
        return self._take(0.0)

    def _take(self, now_s: float) -> list[CutUtterance]:
        return self.segmenter.take(detect(self.segmenter.take_frames()), now_s)


def test_memory_holds_only_audio_that_may_be_needed() -> None:
    cutting = Cutting()
    for _ in range(200):
        cutting.add(silence(500))
    assert sum(map(len, cutting.segmenter.timeline._pieces)) < 32 * 1000
    assert cutting.finish() == []


def test_an_open_utterance_can_be_read() -> None:
    cutting = Cutting()
    assert cutting.segmenter.open_utterance_ms is None
    cutting.add(speech(960))
    assert cutting.segmenter.open_utterance_ms == (0, 960)
    utterance = cutting.segmenter.open_utterance()
    assert utterance is not None
    assert (utterance.start_ms, utterance.end_ms, utterance.pcm) == (0, 960, speech(960))


def test_a_tone_hides_an_open_utterance_only_before_its_speech() -> None:
    tone = (10_000 * np.sin(np.arange(3 * 16_000) / 6)).astype("<i2").tobytes()
    cutting = Cutting()
    cutting.add(tone)
    assert cutting.segmenter.open_utterance() is None
    cutting = Cutting()
    cutting.add(speech(960))
    assert cutting.segmenter.open_utterance() is not None
    cutting.add(tone)
    assert cutting.segmenter.open_utterance() is not None


def test_a_file_boundary_after_silence_ends_the_utterance_in_it() -> None:
    cutting = Cutting()
    (utterance,) = cutting.add(speech(500) + silence(300), ends=True)
    assert 600 <= utterance.end_ms <= 700
    assert cutting.segmenter.tick(99.0, listening=True) == []


def test_a_file_boundary_in_speech_waits_and_is_dropped_when_audio_follows() -> None:
    cutting = Cutting()
    assert cutting.add(speech(500), ends=True) == []
    assert cutting.segmenter.tick(0.99, listening=True) == []
    assert cutting.add(speech(500)) == []
    assert cutting.segmenter.tick(99.0, listening=True) == []
    (utterance,) = cutting.finish()
    assert utterance.pcm == speech(1000) + END_SILENCE


def test_a_file_without_a_successor_in_time_ends_its_utterance() -> None:
    cutting = Cutting()
    cutting.add(speech(500), ends=True)
    (utterance,) = cutting.segmenter.tick(1.0, listening=True)
    assert cutting.segmenter.tick(2.0, listening=True) == []
    assert utterance.pcm == speech(500) + END_SILENCE
    cutting.add(speech(300))
    (rest,) = cutting.finish()
    assert rest.pcm == speech(300) + END_SILENCE


def test_mode_stream_has_no_file_boundaries() -> None:
    cutting = Cutting("stream")
    assert cutting.add(speech(500) + silence(300), ends=True) == []


def test_many_short_files_cut_inside_one_word_are_one_utterance() -> None:
    cutting = Cutting()
    for _ in range(50):
        assert cutting.add(speech(20), starts=cutting.chunks > 0, ends=True) == []
    (utterance,) = cutting.finish()
    assert utterance.pcm == speech(1000) + END_SILENCE


# --------------------------------------------------------------------- file boundaries of a session


def test_mode_stream_ignores_file_boundaries() -> None:
    driver = SessionDriver()
    driver.container_ends = {0, 1}
    driver.start("stream")
    driver.chunk(speech(500) + silence(200))
    driver.chunk(speech(500))
    assert driver.jobs == []


def test_a_file_cut_inside_a_word_waits_for_the_next_for_a_limited_time() -> None:
    driver = SessionDriver(file_boundary_wait_extra_s=0.5)
    driver.container_ends = {0}
    driver.start()
    driver.chunk(speech(2000))
    driver.tick(2.4)
    assert driver.jobs == []
    driver.tick(2.5)
    assert [j.pcm for j in driver.jobs] == [speech(2000) + END_SILENCE]
    driver.chunk(speech(300))
    driver.finish()
    assert [j.pcm for j in driver.jobs[1:]] == [speech(300) + END_SILENCE]


def test_a_file_boundary_waits_while_the_client_is_disconnected() -> None:
    driver = SessionDriver(file_boundary_wait_extra_s=0.5)
    driver.container_ends = {0, 1}
    driver.start()
    driver.chunk(speech(2000))
    driver.tick(2.0)
    driver.feed(e.Disconnected())
    for now_s in (2.2, 5.0, 20.0):
        driver.tick(now_s)
    driver.feed(e.Attached(next_segment_index=None))
    driver.tick(22.4)
    assert driver.jobs == []
    driver.chunk(speech(300) + silence(1000))
    (job,) = driver.jobs
    assert speech(2300) in job.pcm


def test_a_container_whose_end_is_known_only_at_the_next_chunk() -> None:
    driver = SessionDriver()
    driver.container_starts = {1}
    driver.start()
    driver.chunk(speech(500) + silence(250))
    assert driver.jobs == []
    driver.chunk(speech(400) + silence(1000))
    first, second = driver.jobs
    assert speech(500) in first.pcm and first.end_ms < 750
    assert speech(400) in second.pcm and second.start_ms < 750
