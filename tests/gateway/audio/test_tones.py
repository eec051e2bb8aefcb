"""Tones of a telephone line are no speech, and speech is no tone."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest

from gateway.audio.tones import is_tone
from gateway.audio.vad import VadEngine, VadStream
from gateway.session.endpointer import EndpointerConfig
from gateway.session.segmenter import CutUtterance, Segmenter
from tests.gateway.session_driver import LIMITS
from tools.lab.digit_speech import VOICES, digit_clips, speak
from tools.lab.loadtest.speech import DigitSpeech

# ITU-T E.180, supplement 2: Hz, seconds on, seconds off.
TONES = {
    "dial, North America": ((350, 440), 8.0, 0.0),
    "busy, North America": ((480, 620), 0.5, 0.5),
    "reorder, North America": ((480, 620), 0.25, 0.25),
    "ringback, North America": ((440, 480), 2.0, 4.0),
    "busy, Europe": ((425,), 0.5, 0.5),
    "ringback, Europe": ((425,), 1.0, 4.0),
    "busy, China": ((450,), 0.35, 0.35),
    "ringback, United Kingdom": ((400, 450), 0.4, 0.2),
    "beep": ((1_000,), 0.4, 1.0),
}


def tone(name: str, level: float, noise: float = 0.0) -> np.ndarray:
    frequencies, on_s, off_s = TONES[name]
    time_s = np.arange(8 * 16_000) / 16_000
    sound = sum(np.sin(2 * np.pi * hz * time_s) for hz in frequencies) / len(frequencies)
    sound = np.where(time_s % (on_s + off_s) < on_s, sound, 0) * level
    sound += noise * np.random.default_rng(1).standard_normal(len(sound))
    return (32_767 * sound).clip(-32_768, 32_767).astype("<i2")


async def utterances_of(pcm: np.ndarray) -> list[CutUtterance]:
    engine = VadEngine()
    engine.start()
    segmenter = Segmenter("stream", EndpointerConfig(endpoint_silence_ms=700), LIMITS)
    segmenter.finish(pcm.tobytes())
    probabilities = await engine.probabilities(VadStream(), segmenter.take_frames())
    engine.close()
    return segmenter.take(probabilities, 0.0)


@pytest.mark.parametrize("name", TONES)
@pytest.mark.parametrize("level", [0.05, 0.3, 0.95])
async def test_a_tone_at_any_level_gives_no_utterance(name: str, level: float) -> None:
    assert await utterances_of(tone(name, level)) == []


@pytest.mark.parametrize("name", TONES)
def test_a_noisy_line_makes_no_difference(name: str) -> None:
    assert is_tone(tone(name, 0.3, noise=0.001).tobytes())


KEYS = list(itertools.product((697, 770, 852, 941), (1_209, 1_336, 1_477, 1_633)))


def keys(frequencies: list[tuple[int, int]], on_s: float, off_s: float, twist: float) -> np.ndarray:
    """Each of the keys once, with frequencies at the limits of ITU-T Q.24, on a noisy line."""
    time_s = np.arange(round(on_s * 16_000)) / 16_000
    pause = np.zeros(round(off_s * 16_000))
    sounds = [
        part
        for row, column in frequencies
        for part in (
            np.sin(2 * np.pi * row * 1.015 * time_s)
            + twist * np.sin(2 * np.pi * column * 0.985 * time_s),
            pause,
        )
    ]
    sound = 5_000 * np.concatenate(sounds)
    noise = 10 * np.random.default_rng(3).standard_normal(len(sound))
    return (sound + noise).clip(-32_768, 32_767).astype("<i2")


@pytest.mark.parametrize("on_s, off_s", [(0.05, 0.05), (0.07, 0.07), (0.1, 0.1), (0.2, 0.3)])
@pytest.mark.parametrize("twist", [0.5, 1.0, 1.5])
def test_keys_of_a_telephone_are_tones(on_s: float, off_s: float, twist: float) -> None:
    assert is_tone(keys(KEYS, on_s, off_s, twist).tobytes())
    for key in KEYS:
        assert is_tone(keys([key] * 6, on_s, off_s, twist).tobytes()), key


async def test_keys_of_a_telephone_give_no_utterance() -> None:
    for pcm in (keys([KEYS[0]] * 20, 0.1, 0.1, 1.0), keys(KEYS, 0.1, 0.1, 1.0)):
        assert await utterances_of(pcm) == []


def test_speech_behind_a_key_is_no_tone() -> None:
    speech = speak("7", VOICES[0], random.Random(4))
    assert not is_tone(keys([KEYS[5]], 0.1, 0.2, 1.0).tobytes() + speech.tobytes())


@pytest.mark.parametrize("voice", VOICES)
def test_digits_are_no_tones(voice: str) -> None:
    rng = random.Random(3)
    for digit in "0123456789":
        assert not is_tone(speak(digit, voice, rng).tobytes())


def test_a_word_with_silence_around_it_is_no_tone() -> None:
    """ "Three" between two pauses: 10 of 13 frames have 99 % of their power in two bands."""
    speech = DigitSpeech(20_017, 31_000, 200)
    pcm = b"".join(map(speech.chunk, range(speech.chunk_count)))
    assert speech.text.endswith("zero three")
    assert not is_tone(pcm[-42_112:])


def test_silence_and_noise_are_no_tones() -> None:
    assert not is_tone(b"")
    assert not is_tone(bytes(32_000))
    noise = np.random.default_rng(2).standard_normal(16_000) * 1_000
    assert not is_tone(noise.astype("<i2").tobytes())


def test_a_word_is_no_tone_wherever_its_utterance_begins() -> None:
    """The vowel of "three" alone has most of its power in two bands."""
    shares = [
        is_tone(clip[start:].tobytes())
        for voice in VOICES
        for clip in itertools.chain.from_iterable(digit_clips(voice))
        for start in range(0, len(clip) // 2, 512)
    ]
    assert len(shares) > 1_000
    assert sum(shares) == 0


def test_the_first_utterance_imports_nothing() -> None:
    """It would open files, at a moment when the process may have no descriptor left."""
    program = """
import sys
from gateway.audio.tones import is_tone
known = set(sys.modules)
is_tone(bytes(range(256)) * 64)
assert set(sys.modules) == known, set(sys.modules) - known
"""
    subprocess.run([sys.executable, "-c", program], check=True)
