"""Core: whether bytes without a known container can be raw PCM, and which other samples they are.

Raw s16le PCM has no signature. Compressed audio, images or programs taken for it are noise, in
which speech detection finds nothing or a model invents words. Their bytes are spread evenly over
all values and do not depend on each other; samples of a recording are small, or each resembles
those before it, or their high bytes are distributed otherwise than their low ones.

Samples of another form, such as the 32-bit floats of browsers or the µ-law of telephony, leave a
pattern in the bytes that no 16-bit recording has (``other_form``).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

JUDGED_S: Final = 0.5
"""Seconds of audio that are judged: the session's beginning waits for as much."""
QUIET_RMS: Final = 3_000
"""Samples below this level need not be alike. Evenly distributed bytes have 18,900."""
CORRELATION_MIN: Final = 0.4
"""Correlation of samples with one of the ``LAGS`` samples before. Evenly distributed bytes have at
most a few hundredths, a short piece of MP3 0.15, loud ADPCM 0.39; speech and tones have more than a
half."""
LAGS: Final = 4
SAMPLES_MIN: Final = 32
"""Fewer samples cannot be judged; nor can they contain a word."""
SPREAD_MIN: Final = 0.195
"""Distance of the distributions of high and low bytes (total variation), beyond that of chance: of
``n`` bytes each with even distributions it is sqrt(256/πn). That of compressed audio is 0.17 or
less; of white noise at half of full scale it is 0.24."""
LOW_REPEATS_MAX: Final = 2 / 256
"""Probability of a low byte to be that of another sample, twice that of compressed audio: samples
that were widened from 8 bits have few low bytes."""
CONCENTRATION_MIN: Final = 1.15
"""High bytes repeat this many times more often than low ones, unless samples are clipped …"""
CLIPPED_SHARE_MIN: Final = 0.02
"""… which they are if this share of them reaches ``CLIPPED_FROM``."""
CLIPPED_FROM: Final = 32_700
OVERDRIVEN_SHARE_MIN: Final = 0.2
"""Least share of clipped samples in an overdriven recording."""
FORM_BYTES_MIN: Final = 3_000
"""Fewer bytes do not show the form of samples."""
FORM_BYTES_STEP: Final = 24
"""Stretches whose form is judged begin at multiples of this in the stream: of the bytes of a sample
or frame of every form."""
FORM_DISTANCE_MIN: Final = 0.5
"""Distance of the distributions of bytes that would all be the high bytes of 16-bit samples."""
TRIPLE_DISTANCE_MIN: Final = 0.4
"""Distance of the distributions of every third byte."""
BYTE_DISTANCE_MAX: Final = 0.2
BYTE_LEVEL_DISTANCE_MAX: Final = 32
"""Distance of the mean levels of some bytes. Such close distributions differ by at most 26."""
BYTE_SPREAD_MIN: Final = 0.3
"""8-bit samples: all bytes have one distribution, which is not even."""
WIDENED_SHARE: Final = 0.9
"""Of samples whose two bytes are alike: some converters widen 8 bits to 16 by repeating them …"""
_WIDENED: Final = np.array([0, 128, 255], np.uint8)
"""… as they stand, without sign, or times 257: the high byte less the low one."""
MISREAD_LIKENESS_MAX: Final = 0.7
REREAD_LIKENESS_MIN: Final = 0.85
"""Samples that are no more alike than the former, and in another order of bytes or without sign at
least as alike as the latter, are of that form. Speech and tones as they are have more than 0.9."""
EVIDENT_LIKENESS_MIN: Final = 0.8
"""Correlation of neighbouring samples that no misread samples of 16, 24 or 32 bits have. Most
speech has it, and needs no closer look."""
UNSIGNED_LEVELS_MIN: Final = 3
"""Unsigned samples read as signed ones are at least this many times louder."""
FEW_SAMPLES_STRIDE: Final = 8
"""Every eighth sample is examined first. In most sounds that is enough."""
REPEATS_MAX: Final = 0.3
"""Probability of the most uniform of two bytes to be that of another sample: beyond it there is too
little sound to judge."""
FORM_STRETCHES: Final = 2
DECLARED_NOISE_STRETCHES: Final = 4
"""A header that declares PCM is believed for longer."""
SOUNDING_STRETCHES: Final = 8
"""Stretches of ``JUDGED_S`` that are judged, apart from silence."""
STUFFED_VALUES_MIN: Final = 64
PAIRS_SHARE_MIN: Final = 0.98
"""Of pairs of equal samples in two channels alike. Half as many between the pairs are silence."""
IN_TURNS_LIKENESS_MIN: Final = 0.7
"""Samples of two channels in turn correlate at least so much with the second one before …"""
IN_TURNS_NEIGHBOURS_MAX: Final = 0.5
"""… and at most so much with the one before, as if half of the sound were as high as it can be …"""
IN_TURNS_FRAME_SAMPLES: Final = 320
IN_TURNS_LEVELS_MIN: Final = 4.0
"""… and one of the channels has this many times the power of the other one …"""
IN_TURNS_SHARE_MIN: Final = 0.3
"""… in this share of the frames that are no pauses. A high tone beside speech has the correlations
of two channels, but not the levels."""
TONE_LAGS: Final = 24
TONE_CORRELATION_MIN: Final = 0.9
_FLOAT_EXPONENTS: Final = (0x2F, 0x40)
"""Highest byte, without sign, of floats from 1e-10 to 8."""
_FLOATS_SHARE_MIN: Final = 0.95


def is_plausible(data: bytes) -> bool:
    """Whether ``data``, about ``JUDGED_S`` of it, can be s16le PCM."""
    if len(data) < SAMPLES_MIN * 2:
        return True
    return other_form(data) is None and not _is_noise(np.frombuffer(data, np.uint8))


def _is_noise(raw: npt.NDArray[np.uint8]) -> bool:
    """Whether the samples are loud and do not depend on each other."""
    samples = raw[: len(raw) & ~1].view("<i2").astype(np.float32)
    if float(samples @ samples) < QUIET_RMS**2 * len(samples):
        return False
    needed: float = max(CORRELATION_MIN, 4 / len(samples) ** 0.5)
    return not (_are_alike(samples, LAGS, needed) or _is_wide_noise(raw, samples))


def other_form(data: bytes) -> str | None:
    """Name the samples in ``data`` if they have evidently another form than s16le mono. ``data``
    begins at a multiple of ``FORM_BYTES_STEP`` in the stream."""
    raw = np.frombuffer(data[: len(data) // FORM_BYTES_STEP * FORM_BYTES_STEP], np.uint8)
    if len(raw) < FORM_BYTES_MIN or _has_little_sound(raw):
        return None
    return _form_of_sound(raw, evident=_is_evident(raw))


def _is_evident(raw: npt.NDArray[np.uint8]) -> bool:
    return _are_alike(raw.view("<i2").astype(np.float32), 1, EVIDENT_LIKENESS_MIN)


def _form_of_sound(raw: npt.NDArray[np.uint8], *, evident: bool) -> str | None:
    samples = raw.view("<i2")
    of_bytes = "8-bit or compressed samples, such as µ-law" if _is_of_bytes(raw) else None
    if of_bytes is None and evident:
        return None
    if _is_stuffed(samples):
        return "samples of 32 or 64 bits, or of several channels"
    # A tone whose frequency divides the rate has few values, at the same places of each period.
    if _are_alike(samples.astype(np.float32), TONE_LAGS, TONE_CORRELATION_MIN):
        return of_bytes
    histograms = _histograms(raw, FORM_BYTES_STEP)
    if _distance(_distributions(histograms, 8)[1::2]) > FORM_DISTANCE_MIN:
        words = raw.view("<u4")
        exponents = (words[words != 0] >> 24) & 0x7F
        low, high = _FLOAT_EXPONENTS
        if np.mean((exponents >= low) & (exponents <= high)) > _FLOATS_SHARE_MIN:
            return "32-bit floats"
        return "samples of 32 or 64 bits, or of several channels"
    if _distance(_distributions(histograms, 3)) > TRIPLE_DISTANCE_MIN:
        return "samples of 24 bits"
    return of_bytes or _other_16_bits(samples)


def _is_of_bytes(raw: npt.NDArray[np.uint8]) -> bool:
    # Some samples are enough for most recordings: their low bytes are larger than the high ones.
    few = raw[: len(raw) // 32 * 32].view(np.int8)
    low, high = (int(np.abs(few[phase::32].astype(np.int16)).sum()) for phase in (0, 1))
    if abs(low - high) > BYTE_LEVEL_DISTANCE_MAX * (len(few) // 32):
        return False
    # In pauses of digital silence, low and high bytes are alike whatever the form is.
    sounding = raw.view("<i2")
    raw = sounding[sounding != 0].view(np.uint8)
    low_bytes, high_bytes = _distributions(_histograms(raw, 2), 2)
    uniform = np.full(256, 1 / 256)
    return len(raw) >= FORM_BYTES_MIN and (
        _distance([low_bytes, high_bytes]) < BYTE_DISTANCE_MAX
        and _distance([low_bytes, uniform]) > BYTE_SPREAD_MIN
        and float(np.isin(raw[1::2] - raw[::2], _WIDENED).mean()) < WIDENED_SHARE
    )


def _other_16_bits(samples: npt.NDArray[np.int16]) -> str | None:
    """Name the 16-bit form in which ``samples`` are alike, if they are not as they stand."""
    # In another form they are loud as they stand: bytes of low weight are read as those of high.
    if _level(samples) < QUIET_RMS or _are_alike(
        samples.astype(np.float32), LAGS, MISREAD_LIKENESS_MAX
    ):
        return None
    swapped = samples.byteswap()
    forms = {
        "16-bit samples in big-endian order": swapped,
        "unsigned 16-bit samples in big-endian order": swapped ^ np.int16(-32_768),
    }
    # Without sign, clipped samples would be alike, too.
    clipped = float(np.mean((samples == 32_767) | (samples == -32_768)))
    unsigned = samples ^ np.int16(-32_768)
    if clipped < OVERDRIVEN_SHARE_MIN and _level(samples) > UNSIGNED_LEVELS_MIN * _level(unsigned):
        forms["unsigned 16-bit samples"] = unsigned
    for name, form in forms.items():
        if _are_alike(form.astype(np.float32), LAGS, REREAD_LIKENESS_MIN):
            return name
    return None


NOISE: Final = "noise, whose samples do not depend on each other"


class FormJudge:
    """Judges a stream that begins quietly once there is sound. Some stretches with sound prove
    it, and two of the same other form refute it, or ``noise_stretches`` of noise."""

    def __init__(self, sample_rate_hz: int, noise_stretches: int = FORM_STRETCHES) -> None:
        self._noise_stretches = noise_stretches
        whole = int(JUDGED_S * sample_rate_hz) * 2 // FORM_BYTES_STEP * FORM_BYTES_STEP
        self._stretch_bytes = whole
        self._held = bytearray()
        self._sounding = 0
        self._forms: Counter[str] = Counter()
        self.in_pairs = False
        """Each sample occurs twice: two channels alike, or one whose samples were repeated."""
        self._in_turns = 0

    @property
    def _is_proven(self) -> bool:
        return self._sounding >= SOUNDING_STRETCHES

    @property
    def in_turns(self) -> bool:
        """The samples are those of two different channels in turn."""
        return self._in_turns >= FORM_STRETCHES

    def feed(self, data: bytes) -> str | None:
        """Take the next bytes. Returns the name of the form that the samples have instead."""
        if self._is_proven:
            return None
        self._held += data
        while len(self._held) >= self._stretch_bytes and not self._is_proven:
            raw = np.frombuffer(bytes(self._held[: self._stretch_bytes]), np.uint8)
            del self._held[: self._stretch_bytes]
            if _has_little_sound(raw):
                continue
            self._sounding += 1
            self.in_pairs = self.in_pairs or _come_in_pairs(raw.view("<i2"))
            evident = _is_evident(raw)
            self._in_turns += not evident and _come_in_turns(raw.view("<i2"))
            name = _form_of_sound(raw, evident=evident)
            if name is None and _is_noise(raw):
                name = NOISE
            if name is not None:
                self._forms[name] += 1
                needed = self._noise_stretches if name == NOISE else FORM_STRETCHES
                if self._forms[name] >= needed:
                    return name
        if self._is_proven:
            self._held.clear()
        return None


def _come_in_pairs(samples: npt.NDArray[np.int16]) -> bool:
    within, between = samples[::2] == samples[1::2], samples[1:-1:2] == samples[2::2]
    return within.mean() >= PAIRS_SHARE_MIN and bool(between.mean() < PAIRS_SHARE_MIN / 2)


def _come_in_turns(samples: npt.NDArray[np.int16]) -> bool:
    """Whether samples are like the second one before, and not like the one before, and the levels
    of even and odd ones differ."""
    centred = samples.astype(np.float32) - samples.mean(dtype=np.float32)
    if _are_alike(centred, 1, IN_TURNS_NEIGHBOURS_MAX):
        return False
    if float(centred[2:] @ centred[:-2]) < IN_TURNS_LIKENESS_MIN * float(centred @ centred):
        return False
    whole = len(centred) // IN_TURNS_FRAME_SAMPLES * IN_TURNS_FRAME_SAMPLES
    powers = (centred[:whole].reshape(-1, IN_TURNS_FRAME_SAMPLES // 2, 2) ** 2).mean(axis=1) + 1
    totals = powers.sum(axis=1)
    powers = powers[totals > 0.1 * totals.mean()]
    differ = powers.max(axis=1) > IN_TURNS_LEVELS_MIN * powers.min(axis=1)
    return bool(differ.mean() > IN_TURNS_SHARE_MIN)


def _has_little_sound(raw: npt.NDArray[np.uint8]) -> bool:
    """Whether it is too quiet, or too even, to show the form of its samples."""
    # In speech, a few low bytes are enough. A tone may have one value in every eighth sample.
    views = (raw[:: 2 * FEW_SAMPLES_STRIDE], raw[::2], raw[1::2])
    return all(_repeats(each) > REPEATS_MAX for each in views)


def _repeats(values: npt.NDArray[np.uint8]) -> float:
    """Probability that two of ``values`` are equal."""
    counts = np.bincount(values)
    return float(counts @ counts) / len(values) ** 2


def _level(samples: npt.NDArray[np.int16]) -> float:
    return float(np.abs(samples.astype(np.float32)).mean())


def _is_wide_noise(raw: npt.NDArray[np.uint8], samples: npt.NDArray[np.float32]) -> bool:
    """Whether loud samples that are not alike are of noise, such as hiss or an overdriven s."""
    low_bytes, high_bytes = _distributions(_histograms(raw, 2), 2)
    needed = math.hypot(SPREAD_MIN, (256 / (math.pi * max(1, len(samples)))) ** 0.5)
    if len(raw) < FORM_BYTES_MIN or _distance([low_bytes, high_bytes]) < needed:
        return False
    low, high = float((low_bytes**2).sum()), float((high_bytes**2).sum())
    if low > LOW_REPEATS_MAX:
        return True
    clipped = float(np.mean(np.abs(samples) >= CLIPPED_FROM))
    return clipped >= CLIPPED_SHARE_MIN or high >= CONCENTRATION_MIN * low


def _is_stuffed(samples: npt.NDArray[np.int16]) -> bool:
    """Whether every second sample is zero, and the others are not."""
    for first in (0, 1):
        zeros, others = samples[first::2], samples[1 - first :: 2]
        if not zeros.any() and len(np.unique(others)) >= STUFFED_VALUES_MIN:
            return True
    return False


def _are_alike(samples: npt.NDArray[np.float32], lags: int, correlation_min: float) -> bool:
    """Whether samples correlate enough with one of the ``lags`` before, or with its negative."""
    centred = samples - samples.mean()
    count = len(centred)
    power = float(centred @ centred) / count + 1e-9
    return any(
        abs(float(centred[lag:] @ centred[:-lag])) / (count - lag) > correlation_min * power
        for lag in range(1, lags + 1)
    )


def _histograms(raw: npt.NDArray[np.uint8], period: int) -> npt.NDArray[np.int64]:
    """Counts of the 256 values among every ``period``-th byte: shape (``period``, 256)."""
    # bincount widens its input to 8 bytes a value, and large arrays cost page faults.
    return np.array([np.bincount(raw[phase::period], minlength=256) for phase in range(period)])


def _distributions(histograms: npt.NDArray[np.int64], period: int) -> npt.NDArray[np.float64]:
    """Shares of the 256 values among every ``period``-th byte: shape (``period``, 256). ``period``
    divides that of ``histograms``."""
    counts = histograms.reshape(-1, period, 256).sum(axis=0)
    shares: npt.NDArray[np.float64] = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return shares


def _distance(distributions: Sequence[npt.NDArray[np.float64]] | npt.NDArray[np.float64]) -> float:
    """The largest total variation between two of them: 0 if they are equal, at most 1."""
    return max(
        float(np.abs(one - other).sum()) / 2
        for one, other in itertools.combinations(distributions, 2)
    )
