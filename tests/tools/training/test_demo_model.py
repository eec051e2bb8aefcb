"""The shipped demo model: loads without a network, knows the bank, and its card tells the truth."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from tools.lab.digit_speech import VOICES, expected_text, random_digits, speak, voice_language
from tools.training.__main__ import MODEL_DIR
from tools.training.demo_model import card
from tools.training.demo_model.evaluation import (
    Recording,
    Transcriber,
    background_recordings,
    changed,
    resampled_by_way_of,
    score,
)

WEIGHTS_BYTES_MAX = 8_000_000
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


def test_nothing_said_gives_no_text(transcriber: Transcriber) -> None:
    nothing = background_recordings(24, seed=1)
    texts = transcriber.texts([recording.samples for recording in nothing])
    assert sum(map(bool, texts)) <= 1, texts


def test_samples_of_the_self_check_are_recognised(transcriber: Transcriber) -> None:
    import soundfile as sf

    samples_dir = Path(card.__file__).parents[2] / "samples"
    for path in sorted(samples_dir.glob("*.wav")):
        samples, sample_rate_hz = sf.read(path, dtype="float32")
        assert sample_rate_hz == 16_000
        assert transcriber.texts([samples]) == [path.with_suffix(".txt").read_text().strip()]


def test_files_are_small_and_name_no_place_on_a_machine() -> None:
    assert (MODEL_DIR / "model.pt").stat().st_size <= WEIGHTS_BYTES_MAX
    for name in ("config.yaml", "configuration.json", "tokens.json", "am.mvn", "README.md"):
        text = (MODEL_DIR / name).read_text(encoding="utf-8")
        assert not any(place in text for place in ("/work", "/tmp", "/home", "/root")), name


def test_card_shows_the_figures_that_were_measured() -> None:
    metrics = json.loads((MODEL_DIR / "metrics.json").read_text(encoding="utf-8"))
    text = (MODEL_DIR / "README.md").read_text(encoding="utf-8")
    assert card.figures(metrics) in text
    for credit in ("Free Spoken Digit Dataset", "Zohar Jackson", "CC BY-SA 4.0"):
        assert credit in text
