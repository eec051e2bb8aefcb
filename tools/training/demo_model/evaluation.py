"""Digit error rates of a model directory, through FunASR as the worker runs it.

Errors are substitutions, insertions and deletions over the number of digits spoken. Every set of
recordings is made from a seed, so that two models are compared on the same sound.
"""

from __future__ import annotations

import io
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import numpy as np
import soxr  # type: ignore[import-untyped]

from asr_worker.recognizer import funasr_loading
from tools.lab.digit_speech import (
    DIGIT_WORDS,
    SAMPLE_RATE_HZ,
    VOICES,
    Language,
    random_digits,
    speak,
    voice_language,
)
from tools.training.demo_model.bank import trim
from tools.training.demo_model.clips import human_waveforms, synthesised_waveform
from tools.training.demo_model.noise import coloured
from tools.training.demo_model.synthesis import Waveform
from tools.training.demo_model.voices import Request

BATCH: Final = 32
HUMAN_GAP_MS: Final = (50, 400)
JOINED_GAP_MS: Final = (60, 220)
WORDS: Final = {word: i for words in DIGIT_WORDS.values() for i, word in enumerate(words)}
WORD: Final = re.compile("|".join(sorted(WORDS, key=len, reverse=True)))


class Recording(NamedTuple):
    """One test recording: float samples at 16 kHz, their speaker and the digits spoken."""

    speaker: str
    language: Language
    digits: str
    samples: Waveform


class Score(NamedTuple):
    """Counts over a set of recordings."""

    digits: int
    errors: int
    recordings: int
    wrong_recordings: int

    def as_json(self) -> dict[str, float | int]:
        """The counts and both rates in per cent."""
        return {
            "digits": self.digits,
            "digit_errors": self.errors,
            "digit_error_percent": round(100 * self.errors / max(1, self.digits), 3),
            "recordings": self.recordings,
            "wrong_recordings": self.wrong_recordings,
        }


class Transcriber:
    """A model directory, loaded as the worker loads it."""

    def __init__(self, directory: Path) -> None:
        self._model: Any = funasr_loading.auto_model(
            directory, device="cpu", ncpu=1, disable_update=True, disable_pbar=True
        )

    def texts(self, waveforms: Sequence[Waveform]) -> list[str]:
        """Texts of mono 16 kHz recordings, in the order given."""
        order = sorted(range(len(waveforms)), key=lambda i: len(waveforms[i]))
        texts = [""] * len(waveforms)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            results = self._model.generate(
                input=[waveforms[i] for i in chosen], batch_size=len(chosen)
            )
            for i, result in zip(chosen, results, strict=True):
                texts[i] = result["text"]
        return texts


def words_of(text: str, language: Language) -> list[str]:
    """Digits of a recognised text; a digit word of the other language counts as wrong."""
    own = DIGIT_WORDS[language]
    found = WORD.findall(text)
    return [str(WORDS[word]) if word in own else word for word in found]


def edit_distance(said: Sequence[str], heard: Sequence[str]) -> int:
    """Least number of substitutions, insertions and deletions between two sequences."""
    row = list(range(len(heard) + 1))
    for i, expected in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, got in enumerate(heard, 1):
            substituted = diagonal + (expected != got)
            diagonal, row[j] = row[j], min(substituted, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def score(
    transcriber: Transcriber, recordings: Sequence[Recording]
) -> tuple[Score, dict[str, Score]]:
    """Error counts over all recordings and for each speaker."""
    texts = transcriber.texts([recording.samples for recording in recordings])
    by_speaker: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for recording, text in zip(recordings, texts, strict=True):
        heard = words_of(text, recording.language)
        errors = edit_distance(list(recording.digits), heard)
        by_speaker[recording.speaker].append((len(recording.digits), errors))
    scores = {speaker: _summed(counts) for speaker, counts in sorted(by_speaker.items())}
    return _summed([count for counts in by_speaker.values() for count in counts]), scores


def _summed(counts: Iterable[tuple[int, int]]) -> Score:
    listed = list(counts)
    return Score(
        digits=sum(digits for digits, _ in listed),
        errors=sum(errors for _, errors in listed),
        recordings=len(listed),
        wrong_recordings=sum(errors > 0 for _, errors in listed),
    )


def bank_recordings(count: int, seed: int, digits_max: int = 20) -> list[Recording]:
    """Random strings of the speech bank, with every kind of gap that its users ask for."""
    rng = random.Random(seed)
    recordings = []
    for number in range(count):
        voice = VOICES[number % len(VOICES)]
        digits = random_digits(rng, rng.randint(1, digits_max))
        gap_ms = rng.choice(((60, 220), (60, 220), (0, 60), (150, 500)))
        lead_ms, tail_ms = rng.choice(((300, 300), (300, 300), (60, 100), (500, 600)))
        pcm = speak(digits, voice, rng, gap_ms=gap_ms, lead_ms=lead_ms, tail_ms=tail_ms)
        samples = np.asarray(pcm / 32768, dtype=np.float32)
        recordings.append(Recording(voice, voice_language(voice), digits, samples))
    return recordings


def synthetic_recordings(requests: Sequence[Request], seed: int) -> list[Recording]:
    """Recordings of the held-out voices, with a little silence around.

    Mandarin strings of kokoro are joined from single digits with pauses of 60 to 220 ms: said in
    one go they run together, in training voices and test voices alike.
    """
    rng = random.Random(seed)
    recordings = []
    for request in requests:
        apart = request.voice.engine == "kokoro" and request.language == "zh"
        pieces = list(request.digits) if apart else [request.digits]
        parts: list[Waveform] = []
        for piece in pieces:
            speech = synthesised_waveform(request._replace(digits=piece))
            if speech is not None:
                parts += [speech, _silence(rng.randint(*JOINED_GAP_MS))]
        if len(parts) == 2 * len(pieces):
            samples = _padded(np.concatenate(parts[:-1]), rng)
            recordings.append(Recording(request.group, request.language, request.digits, samples))
    return recordings


def human_recordings(directory: Path, strings: int, seed: int) -> dict[str, list[Recording]]:
    """``single``: every human take alone; ``strings``: random takes of one speaker joined.

    Takes are used as they were recorded; ``strings`` is the number of strings per speaker, of 2
    to 10 digits with pauses of 50 to 400 ms.
    """
    rng = random.Random(seed)
    takes: dict[str, list[tuple[str, Waveform]]] = defaultdict(list)
    for speaker, digit, _take, samples in human_waveforms(directory):
        takes[speaker].append((digit, samples))
    single = [
        Recording(speaker, "en", digit, _padded(samples, rng))
        for speaker, said in takes.items()
        for digit, samples in said
    ]
    joined = []
    for speaker, said in takes.items():
        for _ in range(strings):
            chosen = [rng.choice(said) for _ in range(rng.randint(2, 10))]
            parts: list[Waveform] = []
            for _digit, take in chosen:
                parts += [take, _silence(rng.randint(*HUMAN_GAP_MS))]
            digits = "".join(digit for digit, _take in chosen)
            string = _padded(np.concatenate(parts[:-1]), rng)
            joined.append(Recording(speaker, "en", digits, string))
    return {"single": single, "strings": joined}


def background_recordings(count: int, seed: int) -> list[Recording]:
    """Recordings in which nothing is said: silence and noises of 0.3 to 8 s."""
    rng = np.random.default_rng(seed)
    noises = [coloured(rng, exponent) for exponent in (0.0, 1.0, 2.0)]
    recordings = []
    for number in range(count):
        length = int(rng.integers(SAMPLE_RATE_HZ * 3 // 10, SAMPLE_RATE_HZ * 8))
        loudness = 0.0 if number % 4 == 0 else 10 ** rng.uniform(-3.5, 0)
        noise = noises[number % 3]
        start = int(rng.integers(0, len(noise) - length))
        samples = (noise[start : start + length] * loudness).astype(np.float32)
        recordings.append(Recording("background", "en", "", samples))
    return recordings


def _silence(duration_ms: int) -> Waveform:
    return np.zeros(duration_ms * SAMPLE_RATE_HZ // 1000, dtype=np.float32)


def _padded(samples: Waveform, rng: random.Random) -> Waveform:
    """``samples`` with 100 to 400 ms before and after, over faint room noise."""
    ends = [_silence(rng.randint(100, 400)) for _ in range(2)]
    padded = np.concatenate([ends[0], samples, ends[1]])
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(len(padded))
    return np.asarray(padded + noise * 1e-4, dtype=np.float32)


def changed(
    recordings: Sequence[Recording], change: Callable[[Waveform], Waveform]
) -> list[Recording]:
    """The same recordings after a channel, codec or noise."""
    return [one._replace(samples=change(one.samples)) for one in recordings]


def resampled_by_way_of(sample_rate_hz: int) -> Callable[[Waveform], Waveform]:
    """To another sampling rate, 16 bits, and back: 8,000 Hz is the telephone's band."""

    def change(samples: Waveform) -> Waveform:
        there = soxr.resample(samples, SAMPLE_RATE_HZ, sample_rate_hz)
        rounded = np.rint(np.clip(there, -1, 1) * 32767) / 32768
        return np.asarray(soxr.resample(rounded, sample_rate_hz, SAMPLE_RATE_HZ), dtype=np.float32)

    return change


def with_noise(ratio_db: float, seed: int) -> Callable[[Waveform], Waveform]:
    """White, pink or brown noise this much below the speech (its loud parts, not its pauses)."""
    rng = np.random.default_rng(seed)
    noises = [coloured(rng, exponent) for exponent in (0.0, 1.0, 2.0)]

    def change(samples: Waveform) -> Waveform:
        noise = noises[rng.integers(len(noises))]
        start = int(rng.integers(0, len(noise) - len(samples)))
        noise = noise[start : start + len(samples)]
        speech_power = float((trim(samples) ** 2).mean())
        scale = np.sqrt(speech_power / float((noise**2).mean()) * 10 ** (-ratio_db / 10))
        return np.asarray(samples + noise * scale, dtype=np.float32)

    return change


def through_codec(container: str, codec: str, bit_rate: int) -> Callable[[Waveform], Waveform]:
    """Encoded and decoded again, e.g. ``("mp3", "libmp3lame", 64_000)``."""
    sample_rate_hz = 48_000 if codec == "libopus" else SAMPLE_RATE_HZ

    def change(samples: Waveform) -> Waveform:
        pcm = soxr.resample(samples, SAMPLE_RATE_HZ, sample_rate_hz)
        s16 = np.rint(np.clip(pcm, -1, 1) * 32767).astype(np.int16)[None, :]
        file = io.BytesIO()
        with av.open(file, "w", format=container) as output:
            stream: Any = output.add_stream(codec, rate=sample_rate_hz, layout="mono")
            stream.bit_rate = bit_rate
            frame = av.AudioFrame.from_ndarray(s16, format="s16", layout="mono")
            frame.sample_rate = sample_rate_hz
            converter = av.AudioResampler(stream.format, "mono", sample_rate_hz)
            for converted in [*converter.resample(frame), None]:
                output.mux(stream.encode(converted))
        file.seek(0)
        with av.open(file) as decoded:
            back = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)
            frames = [*decoded.decode(audio=0), None]
            parts = [part.to_ndarray()[0] for frame in frames for part in back.resample(frame)]
        return np.asarray(np.concatenate(parts), dtype=np.float32)

    return change


CHANNELS: Final[Mapping[str, Callable[[Waveform], Waveform]]] = {
    "mp3_64k": through_codec("mp3", "libmp3lame", 64_000),
    "opus_24k": through_codec("ogg", "libopus", 24_000),
    "8khz": resampled_by_way_of(8_000),
    "44_1khz": resampled_by_way_of(44_100),
    "noise_10db": with_noise(10.0, 11),
}
