"""The digit speech bank: same seed, same samples; right texts; pauses where they were asked."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import numpy as np
import pytest

from tools.lab.digit_speech import (
    BANK_DIR,
    SAMPLE_RATE_HZ,
    TAKES_PER_DIGIT,
    VOICES,
    Samples,
    expected_text,
    random_digits,
    speak,
    voice_language,
)

BANK_BYTES_MAX = 1_500_000


def silences_ms(samples: Samples) -> list[int]:
    """Lengths of the stretches of at least 50 ms in which no sample is louder than room noise."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 100)
    gaps = [int(after - before) for before, after in pairwise(loud)]
    return [gap * 1000 // SAMPLE_RATE_HZ for gap in gaps if gap > SAMPLE_RATE_HZ // 20]


def test_bank_has_both_languages_and_is_small() -> None:
    languages = [voice_language(voice) for voice in VOICES]
    assert languages.count("zh") >= 3
    assert languages.count("en") >= 4
    assert sum(path.stat().st_size for path in BANK_DIR.iterdir()) <= BANK_BYTES_MAX


def test_index_has_every_take_of_every_digit() -> None:
    index = json.loads((BANK_DIR / "index.json").read_text(encoding="utf-8"))
    assert tuple(index) == VOICES
    for voice in VOICES:
        clips = index[voice]["clips"]
        assert [len(takes) for takes in clips] == [TAKES_PER_DIGIT] * 10
        lengths = [end - begin for takes in clips for begin, end in takes]
        assert min(lengths) > 0.2 * SAMPLE_RATE_HZ
        assert max(lengths) < 0.9 * SAMPLE_RATE_HZ


@pytest.mark.parametrize("voice", VOICES)
def test_the_same_seed_returns_the_same_samples(voice: str) -> None:
    first = speak("90210", voice, random.Random(3))
    again = speak("90210", voice, random.Random(3))
    other = speak("90210", voice, random.Random(4))
    assert first.dtype == np.int16
    assert first.ndim == 1
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or bool(np.any(first != other))


@pytest.mark.parametrize("voice", VOICES)
def test_level_is_that_of_speech_and_silence_is_not_digital_zero(voice: str) -> None:
    samples = speak("0123456789", voice, random.Random(5))
    assert 4_000 < int(np.abs(samples.astype(np.int32)).max()) < 32_000
    lead = samples[: SAMPLE_RATE_HZ // 4].astype(np.float64)
    assert 2.0 < float(lead.std()) < 8.0


def test_duration_is_that_of_clips_gaps_and_ends() -> None:
    rng = random.Random(6)
    ends_only = speak("", "en_slt", rng, lead_ms=200, tail_ms=100)
    assert len(ends_only) == 300 * SAMPLE_RATE_HZ // 1000
    one = speak("7", "en_slt", random.Random(1), lead_ms=0, tail_ms=0)
    with_ends = speak("7", "en_slt", random.Random(1), lead_ms=500, tail_ms=500)
    assert len(with_ends) - len(one) == SAMPLE_RATE_HZ


def test_pauses_come_after_about_the_asked_number_of_digits() -> None:
    digits = random_digits(random.Random(8), 80)
    samples = speak(digits, "zh_tao", random.Random(9), pause_every=8)
    pauses = [gap for gap in silences_ms(samples) if gap >= 850]
    assert 80 // 10 - 1 <= len(pauses) <= 80 // 6
    assert max(pauses) < 1_700
    unbroken = silences_ms(speak(digits, "zh_tao", random.Random(9)))
    assert max(unbroken) < 600


def test_expected_text_is_as_funasr_writes_it() -> None:
    assert expected_text("251", "zh_lan") == "二五一"
    assert expected_text("925", "en_slt") == "nine two five"
    assert expected_text("", "en_slt") == ""


def test_random_digits_uses_all_digits_and_only_its_generator() -> None:
    assert random_digits(random.Random(1), 50) == random_digits(random.Random(1), 50)
    assert set(random_digits(random.Random(1), 500)) == set("0123456789")
    assert random_digits(random.Random(1), 0) == ""


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown voice"):
        speak("1", "en_unknown", random.Random(0))
    with pytest.raises(ValueError, match="digits 0 to 9"):
        speak("1a", "en_slt", random.Random(0))
    with pytest.raises(ValueError, match="pause_every"):
        speak("12", "en_slt", random.Random(0), pause_every=0)
    with pytest.raises(ValueError, match="negative"):
        random_digits(random.Random(0), -1)
