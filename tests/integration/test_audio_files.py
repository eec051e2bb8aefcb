"""From the bytes of a file to words: every container, speech up to a file's edges, and sounds
that are no speech."""

from __future__ import annotations

import io
import random
import wave
from collections.abc import AsyncIterator

import numpy as np
import pytest

from tests.integration.ear import Ear
from tools.lab.digit_speech import VOICES, expected_text, random_digits, speak
from tools.lab.encoded_audio import CONTAINERS, encode

RECORDINGS = 60
TRIMMED_AT = 0.03
"""Of a recording's peak: what is below it at its edges is cut off."""


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    ear = Ear()
    yield ear
    await ear.close()


def trimmed(samples: np.ndarray) -> np.ndarray:
    magnitudes = np.abs(samples.astype(int))
    loud = np.flatnonzero(magnitudes > TRIMMED_AT * magnitudes.max())
    return samples[loud[0] : loud[-1] + 1]


async def test_trimmed_recordings_are_heard_as_well_as_untrimmed_ones(ear: Ear) -> None:
    rng = random.Random(5)
    right = {"untrimmed": 0, "trimmed": 0}
    for number in range(RECORDINGS):
        voice = VOICES[number % len(VOICES)]
        digits = random_digits(rng, rng.randint(1, 8))
        text = expected_text(digits, voice).replace(" ", "")
        samples = speak(digits, voice, rng, lead_ms=300, tail_ms=300)
        for kind, heard in (("untrimmed", samples), ("trimmed", trimmed(samples))):
            wav = encode(heard, "wav", 16_000, 1)
            right[kind] += (await ear.hear([wav])).text == text
    assert right["trimmed"] >= right["untrimmed"] >= RECORDINGS - 2


async def test_files_of_every_container_have_the_words_of_their_recording(ear: Ear) -> None:
    rng = random.Random(9)
    samples = speak("925", "en_slt", rng)
    expected = expected_text("925", "en_slt").replace(" ", "")
    for name in CONTAINERS:
        data = encode(samples, name, 22_050, 2)
        slices = [data[n : n + 3_000] for n in range(0, len(data), 3_000)]
        assert (await ear.hear(slices)).text == expected, name


@pytest.mark.parametrize("channels", ["opposite", "first", "last of six"])
async def test_speech_on_any_channel_is_heard(ear: Ear, channels: str) -> None:
    samples = speak("925", "en_slt", random.Random(9))
    silence = np.zeros_like(samples)
    frames = {
        "opposite": [samples, -samples],
        "first": [samples, silence],
        "last of six": [silence] * 5 + [samples],
    }[channels]
    data = interleaved_wav(np.stack(frames, axis=1))
    expected = expected_text("925", "en_slt").replace(" ", "")
    assert (await ear.hear([data])).text == expected


def interleaved_wav(frames: np.ndarray) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as writer:
        writer.setnchannels(frames.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(frames.astype("<i2").tobytes())
    return target.getvalue()
