"""How audio, detection and file boundaries work together; the endpointer itself has its own
tests."""

from __future__ import annotations

from gateway.audio.timeline import FRAME_SAMPLES
from gateway.session.segmenter import CutUtterance, Segmenter
from tests.gateway.session_driver import ENDPOINTER, silence, speech


def probabilities(frames: bytes) -> list[float]:
    size = FRAME_SAMPLES * 2
    return [0.9 if any(frames[at : at + size]) else 0.0 for at in range(0, len(frames), size)]


class Cutting:
    def __init__(self, *, file_boundaries: bool = True) -> None:
        self.segmenter = Segmenter(ENDPOINTER, file_boundaries_matter=file_boundaries)
        self.chunks = 0

    def add(self, pcm: bytes, *, starts: bool = False, ends: bool = False) -> list[CutUtterance]:
        frames = self.segmenter.append(b"", pcm, chunk_index=self.chunks, starts=starts, ends=ends)
        self.chunks += 1
        return self.segmenter.take(probabilities(frames))

    def finish(self) -> list[CutUtterance]:
        return self.segmenter.take(probabilities(self.segmenter.finish(b"")))


def test_memory_holds_only_what_may_still_be_needed() -> None:
    cutting = Cutting()
    for _ in range(200):
        cutting.add(silence(500))
    assert cutting.segmenter.timeline.kept_bytes < 32 * 1000
    assert cutting.finish() == []


def test_an_open_utterance_can_be_looked_at() -> None:
    cutting = Cutting()
    assert cutting.segmenter.open_utterance() is None
    cutting.add(speech(960))
    utterance = cutting.segmenter.open_utterance()
    assert utterance is not None
    assert (utterance.start_ms, utterance.end_ms, utterance.pcm) == (0, 960, speech(960))


def test_a_file_boundary_after_silence_ends_the_utterance_in_it() -> None:
    cutting = Cutting()
    (utterance,) = cutting.add(speech(500) + silence(300), ends=True)
    assert 600 <= utterance.end_ms <= 700
    assert not cutting.segmenter.waits_at_file_boundary


def test_a_file_boundary_in_speech_waits_and_is_forgotten_when_audio_follows() -> None:
    cutting = Cutting()
    assert cutting.add(speech(500), ends=True) == []
    assert cutting.segmenter.waits_at_file_boundary
    assert cutting.add(speech(500)) == []
    assert not cutting.segmenter.waits_at_file_boundary
    (utterance,) = cutting.finish()
    assert utterance.pcm == speech(1000)


def test_closing_a_file_boundary_cuts_there() -> None:
    cutting = Cutting()
    cutting.add(speech(500), ends=True)
    (utterance,) = cutting.segmenter.close_file_boundary()
    assert utterance.pcm == speech(500)
    cutting.add(speech(300))
    (rest,) = cutting.finish()
    assert rest.pcm == speech(300)


def test_file_boundaries_can_be_switched_off() -> None:
    cutting = Cutting(file_boundaries=False)
    assert cutting.add(speech(500) + silence(300), ends=True) == []


def test_many_short_files_are_one_word_when_cut_inside_it() -> None:
    cutting = Cutting()
    for _ in range(50):
        assert cutting.add(speech(20), starts=cutting.chunks > 0, ends=True) == []
    (utterance,) = cutting.finish()
    assert utterance.pcm == speech(1000)
