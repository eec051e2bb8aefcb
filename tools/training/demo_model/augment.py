"""Augmentation: new utterances from clips in every epoch, as log mel features.

All steps work on mel energies before frames are stacked, where speech, echo and noise add up:
choosing and joining clips, vocal tract length, tempo, rooms, channels, noise, level. Drawing a
second of speech costs well under a millisecond, so that no utterance is repeated.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter  # type: ignore[import-untyped]

from tools.lab.digit_speech import Language
from tools.training.demo_model.clips import MELS, Clip, Features
from tools.training.demo_model.network import token_ids

LOG_FLOOR: Final = -15.942385  # the frontend's output for digital silence
STRING_LENGTHS: Final = ((2, 4), (5, 8), (9, 14), (15, 20))
STRING_SHARES: Final = (0.45, 0.35, 0.17, 0.03)
FRAMES_MAX: Final = 1_400
MARGIN_FRAMES: Final = 3  # silence that trimming leaves at each end of a clip
TELEPHONE_BAND: Final = (8, 58)  # mel bands of 300 and 3,700 Hz

Generator = np.random.Generator
Power = npt.NDArray[np.float32]


class Utterance(NamedTuple):
    """Log mel features of shape ``(frames, 80)`` and the token numbers said in them."""

    features: Features
    tokens: list[int]


@functools.lru_cache(maxsize=64)
def warp_matrix(percent: int) -> Features:
    """Matrix of shape (80, 80) that stretches the mel axis as another vocal tract would.

    Frequency is scaled by ``percent / 100``; bands beyond the end repeat the last.
    """
    mel_low, mel_high = 1127 * np.log1p(20 / 700), 1127 * np.log1p(8000 / 700)
    centres = mel_low + (np.arange(MELS) + 1) * (mel_high - mel_low) / (MELS + 1)
    hertz = 700 * np.expm1(centres / 1127) * percent / 100
    source = (1127 * np.log1p(hertz / 700) - mel_low) / (mel_high - mel_low) * (MELS + 1) - 1
    source = np.clip(source, 0, MELS - 1.001)
    low = source.astype(int)
    matrix = np.zeros((MELS, MELS), dtype=np.float32)
    matrix[low, np.arange(MELS)] = 1 - (source - low)
    matrix[low + 1, np.arange(MELS)] += source - low
    return matrix


def stretched(features: Features, factor: float) -> Features:
    """Features at another pace: ``factor`` times as many frames, interpolated."""
    frames = len(features)
    wanted = max(4, round(frames * factor))
    position = np.linspace(0, frames - 1.001, wanted)
    low = position.astype(int)
    weight = (position - low)[:, None].astype(np.float32)
    result: Features = features[low] * (1 - weight) + features[low + 1] * weight
    return result


class Mixer:
    """Draws training utterances from clips, given the weight of each group of voices."""

    def __init__(
        self,
        clips: Sequence[Clip],
        group_weights: Mapping[str, float],
        noises: Sequence[Features],
        seed: int,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        # Faint noise of every band alike: rounding to 16 bits, a quiet microphone.
        self._flat = self._rng.gamma(2.0, 0.5, (8 * FRAMES_MAX, MELS)).astype(np.float32)
        self._noises = [np.exp(noise.astype(np.float32)) for noise in noises]
        by_speaker: dict[tuple[str, str, Language], list[Clip]] = defaultdict(list)
        for clip in clips:
            by_speaker[clip.group, clip.speaker, clip.language].append(clip)
        self._speakers: dict[tuple[str, Language], list[list[Clip]]] = defaultdict(list)
        for (group, _speaker, language), said in by_speaker.items():
            self._speakers[group, language].append(said)
        self._keys = sorted(key for key in self._speakers if group_weights.get(key[0], 0) > 0)
        weights = np.array([group_weights[group] for group, _language in self._keys])
        self._weights = weights / weights.sum()

    def draw(self) -> Utterance:
        """One new utterance."""
        rng = self._rng
        chosen = self._choose_clips()
        power, tokens = self._join(chosen)
        if rng.random() < 0.3:
            power = reverberated(power, rng)
        power *= np.exp(_random_colour(rng))
        if tokens:  # an utterance's level: from barely audible to nearly clipped
            power *= np.float32(np.exp(rng.uniform(-6.0, 1.6)))
        if rng.random() < 0.65 or not tokens:
            power = self._with_noise(power, bool(tokens))
        if rng.random() < 0.4:
            power = _telephone(power, rng)
        floor = np.exp(rng.uniform(-4.0, 9.0)) if rng.random() < 0.7 else 0.0
        if floor:
            start = int(rng.integers(0, len(self._flat) - FRAMES_MAX))
            power = power + np.float32(floor) * self._flat[start : start + len(power)]
        features = np.log(np.maximum(power, np.float32(np.exp(LOG_FLOOR))))
        return Utterance(features.astype(np.float32), tokens)

    def _speaker(self) -> list[Clip]:
        key = self._keys[self._rng.choice(len(self._keys), p=self._weights)]
        speakers = self._speakers[key]
        return speakers[self._rng.integers(len(speakers))]

    def _choose_clips(self) -> list[Clip]:
        """Clips for one utterance: mostly one speaker, of 1 to 20 digits, seldom nothing."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.04:
            return []
        wanted = 1
        if kind > 0.25:
            low, high = STRING_LENGTHS[rng.choice(len(STRING_LENGTHS), p=STRING_SHARES)]
            wanted = int(rng.integers(low, high + 1))
        change_rate = 0.3 if rng.random() < 0.2 else 0.0
        said = self._speaker()
        chosen: list[Clip] = []
        digits = frames = 0
        for _ in range(3 * wanted + 6):
            if rng.random() < change_rate:
                said = self._speaker()
            clip = said[rng.integers(len(said))]
            fits = digits + len(clip.digits) <= wanted
            if fits and frames + len(clip.features) < FRAMES_MAX * 0.7:
                chosen.append(clip)
                digits += len(clip.digits)
                frames += len(clip.features)
            if digits == wanted:
                break
        return chosen

    def _join(self, chosen: Sequence[Clip]) -> tuple[Power, list[int]]:
        """Mel energies of the clips with pauses between, and their tokens."""
        rng = self._rng
        warp = warp_matrix(int(rng.integers(83, 121)))
        pace = float(np.exp(rng.uniform(np.log(0.68), np.log(1.32))))
        gap_max = int(rng.choice((2, 8, 24, 60)))
        # Some recordings are trimmed so closely that words lose their first or last sound.
        cut_max = MARGIN_FRAMES + 3 if rng.random() < 0.4 else 1
        parts = [_silence(int(rng.integers(0, 61)) if chosen else int(rng.integers(10, 200)))]
        tokens: list[int] = []
        for number, clip in enumerate(chosen):
            if number:
                parts.append(_silence(int(rng.integers(0, gap_max + 1))))
            features = clip.features.astype(np.float32)
            if len(features) > 2 * cut_max + 14 and clip.group != "human":
                first, last = rng.integers(0, cut_max + 1, 2)
                features = features[first : len(features) - last]
            features = stretched(features @ warp, pace * rng.uniform(0.93, 1.07))
            parts.append(np.exp(features + np.float32(rng.normal(0, 0.35))))
            tokens += token_ids(clip.digits, clip.language)
        parts.append(_silence(int(rng.integers(0, 61))))
        joined = np.concatenate(parts)[:FRAMES_MAX]
        if len(joined) < 12:
            joined = np.concatenate([joined, _silence(12)])
        return joined, tokens

    def _with_noise(self, power: Power, has_speech: bool) -> Power:
        rng = self._rng
        noise = self._noises[rng.integers(len(self._noises))]
        start = int(rng.integers(0, len(noise) - FRAMES_MAX))
        noise = noise[start : start + len(power)] * np.exp(_random_colour(rng))
        if not has_speech:
            return np.asarray(power + noise * np.exp(rng.uniform(-16, -2)), dtype=np.float32)
        level = np.sort(power.sum(axis=1))[-max(1, len(power) // 3) :].mean()
        ratio_db = rng.uniform(5, 20) if rng.random() < 0.4 else rng.uniform(15, 40)
        scale = level / noise.sum(axis=1).mean() * 10 ** (-ratio_db / 10)
        return np.asarray(power + noise * np.float32(scale), dtype=np.float32)


def _silence(frames: int) -> Power:
    return np.zeros((frames, MELS), dtype=np.float32)


def _random_colour(rng: Generator) -> npt.NDArray[np.float32]:
    """A smooth channel response, shape ``(80,)``, in log energy: tilt and a few broad waves."""
    axis = np.linspace(0, 1, MELS)
    curve = rng.normal(0, 1.8) * (axis - 0.5)
    for wave in (1, 2, 3):
        curve = curve + rng.normal(0, 0.7) * np.cos(np.pi * wave * axis + rng.uniform(0, np.pi))
    return curve.astype(np.float32)


def reverberated(power: Power, rng: Generator) -> Power:
    """Mel energies with the exponentially decaying echo of a random room added."""
    decay_s = rng.uniform(0.15, 0.8) * np.linspace(1.15, 0.75, MELS)
    per_frame = np.exp(-13.8 * 0.010 / decay_s)
    strength = 10 ** (rng.uniform(-18, -3) / 10)
    echo = np.empty_like(power)
    # Five groups of bands share a decay: one filter call for each instead of one per band.
    for bands in np.array_split(np.arange(MELS), 5):
        keep = float(per_frame[bands].mean())
        echo[:, bands] = lfilter([0.0, 1 - keep], [1.0, -keep], power[:, bands], axis=0)
    return np.asarray(power + np.float32(strength * 4) * echo, dtype=np.float32)


def _telephone(power: Power, rng: Generator) -> Power:
    """Mel energies limited to what 8 kHz sampling passes, at times to the telephone's band."""
    low, high = TELEPHONE_BAND
    bands = np.arange(MELS)
    edge = high + rng.uniform(-2.0, 3.0)
    gain = -np.clip(bands - edge, 0, None) * rng.uniform(2.0, 6.0)
    if rng.random() < 0.4:
        gain = gain - np.clip(low - bands, 0, None) * rng.uniform(0.2, 0.8)
    return np.asarray(power * np.exp(np.maximum(gain, -40)).astype(np.float32), dtype=np.float32)
