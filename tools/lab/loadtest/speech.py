"""Audio of the sessions: random digits by bundled voices, or recordings.

A session stores the positions of its clips, a few bytes for each digit, and makes the samples of a
chunk on request. An hour of audio costs no memory, and a resumed session can send a chunk again.
"""

from __future__ import annotations

import bisect
import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from asr_client.audio import file_duration_s, slices
from tools.lab.digit_speech import SAMPLE_RATE_HZ, VOICES, digit_clips, expected_text

SAMPLES_PER_MS: Final = SAMPLE_RATE_HZ // 1000
GAP_MS: Final = (60, 220)
PAUSE_MS: Final = (900, 1300)
PAUSE_EVERY_DIGITS: Final = (4, 6)
EDGE_MS: Final = 300
"""Silence before the first digit and after the last one."""
CHUNK_EDGE_MS: Final = 80
"""In mode ``chunk``, the least silence between a digit and a border of its chunk."""
NOISE_RMS: Final = 4.0
NOISE_SAMPLES: Final = 1 << 18


class Speech(Protocol):
    """The audio of one session in chunks, each due when its last sample has been spoken."""

    text: str

    @property
    def duration_ms(self) -> int: ...

    @property
    def chunk_count(self) -> int: ...

    def chunk(self, index: int) -> bytes: ...

    def due_ms(self, index: int) -> float:
        """When chunk ``index`` has been spoken, from the start of speech."""

    def spoken_until_ms(self, end_ms: int) -> float | None:
        """The end of the last utterance that a segment with this end can contain."""


@functools.cache
def _noise() -> npt.NDArray[np.int16]:
    # Silence in a real recording is never digital zero.
    noise = np.random.default_rng(0).standard_normal(NOISE_SAMPLES, dtype=np.float32)
    return np.asarray(np.rint(NOISE_RMS * noise), dtype=np.int16)


class DigitSpeech:
    """Random digits for ``duration_ms``, the same ones for the same ``seed``.

    With ``chunks_are_utterances`` no digit crosses a border of two chunks.
    """

    def __init__(
        self, seed: int, duration_ms: int, chunk_ms: int, *, chunks_are_utterances: bool = False
    ) -> None:
        rng = random.Random(seed)
        voice = VOICES[rng.randrange(len(VOICES))]
        self._chunk_samples = chunk_ms * SAMPLES_PER_MS
        self._clips = digit_clips(voice)
        self._starts: list[int] = []
        self._takes: list[tuple[int, int]] = []
        self._utterance_ends_ms: list[float] = []
        self._noise_offset = rng.randrange(NOISE_SAMPLES)
        duration = duration_ms * SAMPLES_PER_MS
        if chunks_are_utterances:
            self._fill_chunks(rng, duration)
        else:
            self._fill(rng, duration)
        self.digits = "".join(str(digit) for digit, _ in self._takes)
        self.text = expected_text(self.digits, voice)
        self._chunk_ms = chunk_ms
        self._samples = -(-duration // self._chunk_samples) * self._chunk_samples

    def _fill(self, rng: random.Random, duration: int) -> None:
        place = EDGE_MS * SAMPLES_PER_MS
        to_pause = rng.randint(*PAUSE_EVERY_DIGITS)
        while True:
            digit, take = rng.randrange(10), rng.randrange(2)
            end = place + len(self._clips[digit][take])
            if end + EDGE_MS * SAMPLES_PER_MS > duration:
                break
            self._put(place, digit, take)
            to_pause -= 1
            gap_ms = GAP_MS
            if to_pause == 0:
                gap_ms = PAUSE_MS
                to_pause = rng.randint(*PAUSE_EVERY_DIGITS)
                self._utterance_ends_ms.append(end / SAMPLES_PER_MS)
            place = end + rng.randint(*gap_ms) * SAMPLES_PER_MS
        self._end_last_utterance()

    def _fill_chunks(self, rng: random.Random, duration: int) -> None:
        edge = CHUNK_EDGE_MS * SAMPLES_PER_MS
        place = edge
        while place < duration:
            digit, take = rng.randrange(10), rng.randrange(2)
            border = (place // self._chunk_samples + 1) * self._chunk_samples
            end = place + len(self._clips[digit][take])
            if end + edge > border:
                place = border + edge
                if end - place + 2 * edge > self._chunk_samples:
                    raise ValueError("a chunk is too short for a digit")
                continue
            if end + edge > duration:
                break
            self._put(place, digit, take)
            place = end + rng.randint(*GAP_MS) * SAMPLES_PER_MS
        self._utterance_ends_ms = [
            border / SAMPLES_PER_MS
            for border in range(self._chunk_samples, duration + 1, self._chunk_samples)
        ]

    def _put(self, place: int, digit: int, take: int) -> None:
        self._starts.append(place)
        self._takes.append((digit, take))

    def _end_last_utterance(self) -> None:
        if not self._takes:
            return
        digit, take = self._takes[-1]
        end_ms = (self._starts[-1] + len(self._clips[digit][take])) / SAMPLES_PER_MS
        if not self._utterance_ends_ms or self._utterance_ends_ms[-1] < end_ms:
            self._utterance_ends_ms.append(end_ms)

    @property
    def duration_ms(self) -> int:
        return self._samples // SAMPLES_PER_MS

    @property
    def chunk_count(self) -> int:
        return self._samples // self._chunk_samples

    def chunk(self, index: int) -> bytes:
        """The samples of one chunk, s16le."""
        begin = index * self._chunk_samples
        end = begin + self._chunk_samples
        offset = (self._noise_offset + begin) % (NOISE_SAMPLES - self._chunk_samples)
        samples = _noise()[offset : offset + self._chunk_samples].copy()
        # The last clip before the chunk may extend into it.
        number = max(0, bisect.bisect_right(self._starts, begin) - 1)
        while number < len(self._starts) and (start := self._starts[number]) < end:
            digit, take = self._takes[number]
            clip = self._clips[digit][take]
            low, high = max(start, begin), min(start + len(clip), end)
            if low < high:
                samples[low - begin : high - begin] += clip[low - start : high - start]
            number += 1
        return samples.tobytes()

    def due_ms(self, index: int) -> float:
        return (index + 1) * self._chunk_ms

    def spoken_until_ms(self, end_ms: int) -> float | None:
        number = bisect.bisect_right(self._utterance_ends_ms, end_ms)
        return self._utterance_ends_ms[number - 1] if number else None


class FileSpeech:
    """A recording with its transcript, sent in slices of the file."""

    def __init__(self, path: Path, text: str, chunk_ms: int) -> None:
        data = path.read_bytes()
        self._duration_s = file_duration_s(path, SAMPLE_RATE_HZ)
        self._slices: Sequence[bytes] = slices(data, self._duration_s, chunk_ms)
        self.text = text

    @property
    def duration_ms(self) -> int:
        return round(self._duration_s * 1000)

    @property
    def chunk_count(self) -> int:
        return len(self._slices)

    def chunk(self, index: int) -> bytes:
        return self._slices[index]

    def due_ms(self, index: int) -> float:
        return self._duration_s * 1000 * (index + 1) / len(self._slices)

    def spoken_until_ms(self, end_ms: int) -> float | None:
        """Where speech ends in a recording is unknown, so the server's end is taken."""
        return float(end_ms)


def recordings(directory: Path, chunk_ms: int) -> list[FileSpeech]:
    """Every file of ``directory`` with a transcript ``NAME.txt`` beside it.

    Raises:
        ValueError: if there is none.
    """
    found = [
        FileSpeech(path, path.with_suffix(".txt").read_text(encoding="utf-8").strip(), chunk_ms)
        for path in sorted(directory.iterdir())
        if path.suffix != ".txt" and path.with_suffix(".txt").exists()
    ]
    if not found:
        raise ValueError(f"{directory} holds no recording with a transcript NAME.txt beside it")
    return found
