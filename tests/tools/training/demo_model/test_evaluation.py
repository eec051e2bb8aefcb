"""Digit error rates, and those of the bundled model."""

from __future__ import annotations

import random

import numpy as np
import pytest
import soundfile as sf

from tools.cli.self_check import DIGITS
from tools.lab.digit_speech import VOICES, expected_text, random_digits, speak, voice_language
from tools.training.__main__ import MODEL_DIR
from tools.training.demo_model.clips import log_mel
from tools.training.demo_model.evaluation import (
    Recording,
    Transcriber,
    background_recordings,
    changed,
    edit_distance,
    resampled_by_way_of,
    score,
    words_of,
)
from tools.training.demo_model.noise import coloured

STRINGS = 64


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber(MODEL_DIR)


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    rng = random.Random(60)
    made = []
    for number in range(STRINGS):
        voice = VOICES[number % len(VOICES)]
        digits = random_digits(rng, 1 + number % 12)
        samples = (speak(digits, voice, rng) / 32768).astype(np.float32)
        made.append(Recording(voice, voice_language(voice), digits, samples))
    return made


def test_bank_strings_are_recognised_without_error(
    transcriber: Transcriber, recordings: list[Recording]
) -> None:
    texts = transcriber.texts([recording.samples for recording in recordings])
    expected = [expected_text(recording.digits, recording.speaker) for recording in recordings]
    assert texts == expected


def test_bank_strings_survive_the_telephone(
    transcriber: Transcriber, recordings: list[Recording]
) -> None:
    total, _by_voice = score(transcriber, changed(recordings, resampled_by_way_of(8_000)))
    assert total.errors <= total.digits * 0.01, total


def test_silence_and_noise_have_no_text(transcriber: Transcriber) -> None:
    nothing = background_recordings(24, seed=1)
    texts = transcriber.texts([recording.samples for recording in nothing])
    assert sum(map(bool, texts)) <= 1, texts


def test_samples_of_the_self_check_are_recognised(transcriber: Transcriber) -> None:
    for path in DIGITS:
        samples, sample_rate_hz = sf.read(path, dtype="float32")
        assert sample_rate_hz == 16_000
        assert transcriber.texts([samples]) == [path.with_suffix(".txt").read_text().strip()]


def test_errors_are_counted_as_edits() -> None:
    assert edit_distance(list("123"), list("123")) == 0
    assert edit_distance(list("123"), list("13")) == 1
    assert edit_distance(list("123"), list("1423")) == 1
    assert edit_distance(list("123"), list("")) == 3


def test_a_word_of_the_other_language_is_an_error() -> None:
    assert words_of("nine two five", "en") == ["9", "2", "5"]
    assert words_of("九三nine", "zh") == ["9", "3", "nine"]


def test_the_telephone_removes_the_upper_half_of_the_band() -> None:
    noise = coloured(np.random.default_rng(2), 0.0, seconds=2)
    before, after = log_mel(noise), log_mel(resampled_by_way_of(8_000)(noise))
    difference = (before - after).mean(axis=0)
    assert abs(float(difference[:50].mean())) < 0.1
    assert float(difference[70:].mean()) > 5
