from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tools.lab.digit_speech import VOICES, digit_clips
from tools.lab.loadtest.speech import DigitSpeech, recordings


def samples(speech: DigitSpeech) -> np.ndarray:
    whole = b"".join(speech.chunk(index) for index in range(speech.chunk_count))
    return np.frombuffer(whole, dtype=np.int16)


@pytest.mark.parametrize("seed", range(5))
def test_the_audio_does_not_depend_on_the_chunks(seed: int) -> None:
    by_20 = DigitSpeech(seed, 6_000, 20)
    by_3000 = DigitSpeech(seed, 6_000, 3_000)
    assert by_20.text == by_3000.text and len(by_20.digits) > 4
    left, right = samples(by_20).astype(int), samples(by_3000).astype(int)
    # The noise may differ, the digits not.
    assert len(left) == len(right) == 96_000
    assert np.abs(left - right).max() < 64


def test_every_clip_is_in_the_audio_once_and_whole() -> None:
    speech = DigitSpeech(3, 10_000, 170)
    voice = next(v for v in VOICES if speech._clips is digit_clips(v))
    clips = digit_clips(voice)
    rest = samples(speech).astype(int)
    for start, (digit, take) in zip(speech._starts, speech._takes, strict=True):
        clip = clips[digit][take]
        rest[start : start + len(clip)] -= clip
    assert np.abs(rest).max() < 64


def test_a_seed_decides_the_text() -> None:
    assert DigitSpeech(1, 5_000, 200).text == DigitSpeech(1, 5_000, 200).text
    assert len({DigitSpeech(seed, 20_000, 200).text for seed in range(50)}) == 50


def test_utterances_end_where_pauses_begin() -> None:
    speech = DigitSpeech(4, 30_000, 200)
    ends = speech._utterance_ends_ms
    assert len(ends) > 4
    assert speech.spoken_until_ms(0) is None
    assert speech.spoken_until_ms(int(ends[0]) + 600) == ends[0]
    assert speech.spoken_until_ms(10**9) == ends[-1]
    loud = np.abs(samples(speech)) > 200
    for end_ms in ends:
        after = int(end_ms * 16)
        assert not loud[after + 160 : after + 160 + 8_000].any()


@pytest.mark.parametrize("chunk_ms", [1_000, 2_000])
def test_no_digit_lies_across_a_border_of_utterance_chunks(chunk_ms: int) -> None:
    speech = DigitSpeech(5, 20_000, chunk_ms, chunks_are_utterances=True)
    loud = np.abs(samples(speech)) > 200
    for border in range(chunk_ms * 16, len(loud), chunk_ms * 16):
        assert not loud[border - 800 : border + 800].any()
    assert len(speech.digits) >= 10
    assert speech.spoken_until_ms(chunk_ms) == chunk_ms


def test_a_chunk_too_short_for_a_digit_is_an_error() -> None:
    with pytest.raises(ValueError, match="too short for a digit"):
        DigitSpeech(5, 20_000, 300, chunks_are_utterances=True)


def test_an_hour_costs_little_memory() -> None:
    speech = DigitSpeech(6, 3_600_000, 200)
    assert speech.chunk_count == 18_000
    assert len(speech._starts) < 10_000
    assert len(speech.chunk(17_999)) == 6_400


def test_recordings_are_files_with_a_transcript(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.zeros(16_000, dtype=np.int16), 16_000)
    sf.write(tmp_path / "b.wav", np.zeros(16_000, dtype=np.int16), 16_000)
    (tmp_path / "a.txt").write_text("one two\n", encoding="utf-8")
    (found,) = recordings(tmp_path, 250)
    assert (found.text, found.chunk_count, found.duration_ms) == ("one two", 4, 1_000)
    assert found.due_ms(3) == 1_000
    whole = b"".join(found.chunk(index) for index in range(4))
    assert whole == (tmp_path / "a.wav").read_bytes()


def test_a_directory_without_recordings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recording with a transcript"):
        recordings(tmp_path, 200)
