"""Bytes that can be raw PCM, and bytes that are evidently something else."""

from __future__ import annotations

import itertools
import random
import zlib
from typing import Any

import numpy as np
import pytest

from gateway.audio.g711 import to_pcm
from gateway.audio.raw_pcm import FormJudge, is_plausible, other_form
from tools.lab.digit_speech import speak
from tools.lab.encoded_audio import encode, resample

SPEECH = speak("4711", "zh_mei", random.Random(2))
RNG = np.random.default_rng(7)


def s16(samples: np.ndarray) -> bytes:
    return samples.clip(-32768, 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("gain", [0.01, 1, 30])
def test_every_half_second_of_speech_is_plausible(rate_hz: int, gain: float) -> None:
    pcm = resample(SPEECH, rate_hz).astype(float) * gain
    half = rate_hz // 2
    for start in range(0, len(pcm) - half, half // 3):
        assert is_plausible(s16(pcm[start : start + half]))


@pytest.mark.parametrize("hz", [50, 425, 1_633, 2_000, 3_000, 3_990])
def test_tones_are_plausible(hz: int) -> None:
    assert is_plausible(s16(25_000 * np.sin(np.arange(4_000) * 2 * np.pi * hz / 8_000)))


@pytest.mark.parametrize("pause_s", [0.04, 0.08, 0.25, 0.5])
@pytest.mark.parametrize("amplitude", [8_000, 24_000, 30_000, 45_000])
@pytest.mark.parametrize("frequencies", [(425,), (480, 620), (697, 1_209), (941, 1_477), (2_100,)])
def test_a_loud_tone_with_pauses_has_no_other_form(
    frequencies: tuple[int, ...], amplitude: int, pause_s: float
) -> None:
    """Low and high bytes of digital silence are alike, as those of 8-bit samples are."""
    time_s = np.arange(64_000) / 16_000
    tone = sum(np.sin(2 * np.pi * hz * time_s) for hz in frequencies) / len(frequencies)
    assert (
        FormJudge(16_000).feed(s16(amplitude * tone * (time_s % (2 * pause_s) < pause_s))) is None
    )


def test_silence_noise_and_very_few_bytes_are_plausible() -> None:
    assert is_plausible(bytes(16_000))
    assert is_plausible(s16(RNG.standard_normal(8_000) * 2_000))
    assert is_plausible(b"")
    assert is_plausible(b"\x12\x91\x34")


@pytest.mark.parametrize("name", ["aac", "m4a", "mp3", "ogg", "webm", "flac", "wma"])
def test_compressed_audio_is_not(name: str) -> None:
    data = encode(SPEECH, name, 16_000, 1)
    assert not is_plausible(data[2_000:18_000])


def test_random_and_packed_bytes_are_not() -> None:
    for _ in range(50):
        assert not is_plausible(RNG.bytes(16_000))
    assert not is_plausible(zlib.compress(RNG.integers(0, 9, 60_000).astype(np.uint8).tobytes()))


@pytest.mark.parametrize("count", [3_000, 5_056, 8_000, 16_000])
def test_few_bytes_of_a_file_are_not(count: int) -> None:
    """The fewer samples, the more their low and high bytes differ by chance."""
    packets = encode(SPEECH, "rm", 16_000, 1)[2_000:]
    for start in range(0, len(packets) - count, 1_001):
        assert not is_plausible(packets[start : start + count])
    assert is_plausible(s16(RNG.standard_normal(count // 2) * 14_000))


def u_law(pcm: np.ndarray) -> bytes:
    return encode(pcm, "au", 16_000, 1)[24:]


FORMS = {
    "32-bit floats": lambda x: (x / 32_768).astype("<f4").tobytes(),
    "32-bit floats of a browser": lambda x: (
        ((x + RNG.random(len(x))) / 32_768).astype("<f4").tobytes()
    ),
    "32 or 64 bits": lambda x: (x.astype("<i4") * 65_536).tobytes(),
    "32 or 64 bits, of a microphone": lambda x: (
        x.astype("<i4") * 65_536 + RNG.integers(-20_000, 20_000, len(x), np.int32)
    ).tobytes(),
    "24 bits": lambda x: (x.astype("<i4") * 256).view(np.uint8).reshape(-1, 4)[:, :3].tobytes(),
    "8-bit": lambda x: (x // 256).astype(np.int8).tobytes(),
    "8-bit, unsigned": lambda x: (x // 256 + 128).astype(np.uint8).tobytes(),
    "8-bit, quiet": lambda x: (x // 1_024).astype(np.int8).tobytes(),
    "unsigned 16-bit samples": lambda x: (x ^ np.int16(-32_768)).tobytes(),
    "unsigned 16-bit samples in big-endian order": lambda x: (
        (x ^ np.int16(-32_768)).byteswap().tobytes()
    ),
    "16-bit samples in big-endian order": lambda x: x.byteswap().tobytes(),
    "8-bit, µ-law": u_law,
}
LOUD = np.concatenate([SPEECH] * 3) // 4 * 7
"""As of a near microphone."""


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("silence_s", [0, 2])
def test_samples_of_another_form_are_named_once_there_is_sound(name: str, silence_s: int) -> None:
    samples = np.concatenate([np.zeros(silence_s * 16_000, np.int16), LOUD])
    data = FORMS[name](samples)
    judge = FormJudge(16_000)
    said = [judge.feed(data[n : n + 1_111]) for n in range(0, len(data), 1_111)]
    assert any(name.partition(",")[0].partition(" of a")[0] in found for found in said if found)


def test_noise_behind_silence_is_no_recording() -> None:
    judge = FormJudge(16_000)
    said = [judge.feed(data) for data in (bytes(50_000), RNG.bytes(20_000), RNG.bytes(40_000))]
    assert said[:2] == [None, None] and "noise" in (said[2] or "")


def test_an_overdriven_recording_is_not_unsigned() -> None:
    samples = s16(SPEECH.astype(float) * 60)
    half = 16_000
    for start in range(0, len(samples) - half, half):
        assert other_form(samples[start : start + half]) is None


def microphone(kind: str, rate_hz: int) -> np.ndarray:
    """Speech as recorders of each ``kind`` send it: with noise, an offset, or clipping."""
    speech = resample(SPEECH, rate_hz).astype(float)
    noise = RNG.standard_normal(len(speech))
    kinds: dict[str, np.ndarray] = {
        "quiet room": speech / 300 + noise * 3,
        "offset": speech + 6_000,
        "clipped": speech * 40,
        "hiss": speech + noise * 4_000,
        "fan": speech + np.convolve(noise, np.ones(40), "same") * 300,
        "zeros first": np.concatenate([np.zeros(rate_hz), speech]),
        "click first": np.concatenate([[32_767.0, -32_768.0], speech]),
        "beep first": np.concatenate(
            [12_000 * np.sin(np.arange(rate_hz) * 2 * np.pi * rate_hz / 16 / rate_hz), speech]
        ),
        "of 8 bits": speech // 256 * 256,
        "of 8 bits, widened": (speech // 256).clip(-128, 127) % 256 * 257 - 65_536 * (speech < 0),
        "of 8 bits, times 257": speech // 256 * 257,
        "of 8 bits, in hiss": (speech + noise * 4_000) // 256 * 256,
        "of µ-law, in hiss": np.frombuffer(
            to_pcm(u_law((speech + noise * 4_000).clip(-32_768, 32_767).astype("<i2")), "ulaw"),
            "<i2",
        ).astype(float),
        "hum, then hiss": np.where(
            np.arange(rate_hz) % (rate_hz // 2) < 0.4 * rate_hz,
            8 * np.sin(np.arange(rate_hz) * 2 * np.pi * 50 / rate_hz) + RNG.normal(0, 0.5, rate_hz),
            RNG.normal(0, 300, rate_hz),
        ),
        "cut in speech": speech[int(np.abs(speech).argmax()) :],
    }
    return kinds[kind]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
@pytest.mark.parametrize(
    "kind",
    [
        "quiet room",
        "offset",
        "clipped",
        "hiss",
        "fan",
        "zeros first",
        "click first",
        "beep first",
        "of 8 bits",
        "of 8 bits, widened",
        "of 8 bits, times 257",
        "of 8 bits, in hiss",
        "of µ-law, in hiss",
        "hum, then hiss",
        "cut in speech",
    ],
)
def test_what_microphones_send_is_never_refused(kind: str, rate_hz: int) -> None:
    pcm = s16(microphone(kind, rate_hz))
    half = rate_hz // 24 * 24
    judge = FormJudge(rate_hz)
    for start in range(0, len(pcm) - half, half):
        assert is_plausible(pcm[start : start + half])
        assert other_form(pcm[start : start + half]) is None
        assert judge.feed(pcm[start : start + half]) is None


def in_turns(samples: np.ndarray[Any, Any]) -> bool:
    judge = FormJudge(16_000)
    judge.feed(samples.astype("<i2").tobytes())
    return judge.in_turns


def test_two_speakers_in_turn_are_two_channels() -> None:
    one, other = (speak(text, "zh_mei", random.Random(3)) for text in ("123456", "987650"))
    length = min(len(one), len(other))
    assert in_turns(np.stack([one[:length], other[:length]], 1).ravel())
    silence, hiss = np.zeros(length), np.random.default_rng(1).normal(0, 30, length)
    assert in_turns(np.stack([hiss, other[:length]], 1).ravel())
    both = [np.concatenate([one, silence]), np.concatenate([np.zeros(len(one)), other[:length]])]
    assert in_turns(np.stack(both, 1).ravel())


def test_one_channel_is_not_taken_for_two() -> None:
    """Also not with a tone near the highest frequency, whose correlations are those of two."""
    count = np.arange(len(SPEECH))
    level = float(np.std(SPEECH))
    sounds = [SPEECH, np.diff(SPEECH.astype(int)), SPEECH.clip(-900, 900) * 30, SPEECH // 256 * 256]
    sounds += [
        SPEECH + factor * level * np.cos(2 * np.pi * frequency * count)
        for frequency, factor in itertools.product((0.45, 0.49, 0.499), (0.7, 1.0, 1.4))
    ]
    for sound in sounds:
        assert not in_turns(np.clip(sound, -32_768, 32_767))
