"""Speech of random digit strings with a known text, without any speech synthesiser.

The bank in ``tools/voices`` holds, for each of a few synthetic voices, two takes of each of the
ten digits. :func:`speak` joins takes into one recording, so that tests and load tests can give
every session audio of its own with a known transcript (:func:`expected_text`): a result that is
lost, duplicated, reordered or sent to another session is detected. The bundled demo model
(``ASR_MODEL=demo``) was trained on these voices and is measured on them in its card.

Example::

    rng = random.Random(7)
    digits = random_digits(rng, 8)
    pcm = speak(digits, "en_slt", rng)       # int16, mono, 16 kHz
    text = expected_text(digits, "en_slt")   # "nine two five ..."

The same arguments and an equally seeded ``rng`` give the same samples, on any machine.
"""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import soundfile as sf

Language = Literal["zh", "en"]
Samples = npt.NDArray[np.int16]

SAMPLE_RATE_HZ: Final = 16_000
TAKES_PER_DIGIT: Final = 2
BANK_DIR: Final = Path(__file__).resolve().parents[1] / "voices"

DIGIT_WORDS: Final[dict[Language, tuple[str, ...]]] = {
    "zh": tuple("零一二三四五六七八九"),
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
}

VOICES: Final[tuple[str, ...]] = (
    "zh_lan",
    "zh_jun",
    "zh_mei",
    "zh_tao",
    "en_slt",
    "en_rms",
    "en_awb",
    "en_sam",
)
"""Voices of the bank; the part before the underscore is the language."""

# Silence in a real recording is never digital zero, and a detector tuned on real recordings may
# behave oddly on digital zero. About -78 dBFS: inaudible, and far below the quietest digit.
_ROOM_NOISE_RMS: Final = 4.0


def voice_language(voice: str) -> Language:
    """Language of ``voice``.

    Raises:
        ValueError: for a voice that is not in the bank.
    """
    if voice not in VOICES:
        raise ValueError(f"unknown voice {voice!r}; the bank has {', '.join(VOICES)}")
    return "zh" if voice.startswith("zh_") else "en"


def random_digits(rng: random.Random, n: int) -> str:
    """``n`` digits, each drawn uniformly, as a string such as ``"925"``."""
    if n < 0:
        raise ValueError(f"number of digits must not be negative: {n}")
    return "".join(rng.choice("0123456789") for _ in range(n))


def expected_text(digits: str, voice: str) -> str:
    """Transcript of ``digits`` in the form that FunASR returns for the voice's language.

    ``"251"`` is ``"二五一"`` for a Mandarin voice and ``"two five one"`` for an English one.
    """
    words = DIGIT_WORDS[voice_language(voice)]
    separator = "" if words is DIGIT_WORDS["zh"] else " "
    return separator.join(words[digit] for digit in _digit_values(digits))


def speak(
    digits: str,
    voice: str,
    rng: random.Random,
    gap_ms: tuple[int, int] = (60, 220),
    pause_every: int | None = None,
    pause_ms: tuple[int, int] = (900, 1300),
    lead_ms: int = 300,
    tail_ms: int = 300,
) -> Samples:
    """Recording of ``digits`` by ``voice``: int16 samples, mono, 16 kHz, shape ``(samples,)``.

    Gaps between digits are silence (low room noise) of a length drawn from ``gap_ms``; ``lead_ms``
    and ``tail_ms`` precede the first digit and follow the last one. With ``pause_every``, a gap
    drawn from ``pause_ms`` replaces the ordinary one after about that many digits (up to a quarter
    more or fewer), so that an endpointer cuts the recording into utterances there.

    ``rng`` chooses takes, gaps and noise, and is advanced by the call. Without digits the recording
    is silence.

    Raises:
        ValueError: for an unknown voice, or for characters other than 0 to 9 in ``digits``.
    """
    voice_language(voice)
    clips = digit_clips(voice)
    values = _digit_values(digits)
    parts: list[Samples] = [_silence(lead_ms)]
    digits_to_pause = _draw_pause_distance(pause_every, rng)
    for position, digit in enumerate(values):
        if position:
            digits_to_pause -= 1
            paused = pause_every is not None and digits_to_pause <= 0
            if paused:
                digits_to_pause = _draw_pause_distance(pause_every, rng)
            parts.append(_silence(rng.randint(*(pause_ms if paused else gap_ms))))
        parts.append(clips[digit][rng.randrange(TAKES_PER_DIGIT)])
    parts.append(_silence(tail_ms))
    speech = np.concatenate(parts).astype(np.float32)
    noise = np.random.default_rng(rng.getrandbits(64)).standard_normal(
        len(speech), dtype=np.float32
    )
    noisy = np.rint(speech + _ROOM_NOISE_RMS * noise)
    return np.clip(noisy, -32768, 32767).astype(np.int16)


def _digit_values(digits: str) -> list[int]:
    if not all("0" <= character <= "9" for character in digits):
        raise ValueError(f"only the digits 0 to 9 can be spoken: {digits!r}")
    return [int(character) for character in digits]


def _draw_pause_distance(pause_every: int | None, rng: random.Random) -> int:
    """Number of digits until the next pause; 0 without pauses."""
    if pause_every is None:
        return 0
    if pause_every < 1:
        raise ValueError(f"pause_every must be at least 1: {pause_every}")
    spread = pause_every // 4
    return rng.randint(pause_every - spread, pause_every + spread)


def _silence(duration_ms: int) -> Samples:
    return np.zeros(duration_ms * SAMPLE_RATE_HZ // 1000, dtype=np.int16)


@functools.lru_cache(maxsize=len(VOICES))
def digit_clips(voice: str) -> tuple[tuple[Samples, ...], ...]:
    """Clips of one voice as ``clips[digit][take]``, int16 at 16 kHz, from the bank's file."""
    index = json.loads((BANK_DIR / "index.json").read_text(encoding="utf-8"))
    samples, sample_rate_hz = sf.read(BANK_DIR / f"{voice}.flac", dtype="int16")
    assert sample_rate_hz == SAMPLE_RATE_HZ
    bounds: list[list[list[int]]] = index[voice]["clips"]
    return tuple(
        tuple(np.asarray(samples[begin:end], dtype=np.int16) for begin, end in takes)
        for takes in bounds
    )
