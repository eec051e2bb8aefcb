"""Background noises for augmentation: coloured noise, hum, clicks, and babble of many voices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from tools.lab.digit_speech import SAMPLE_RATE_HZ
from tools.training.demo_model.clips import Clip, Features, log_mel

NOISE_S: Final = 30
BABBLE_VOICES: Final = (4, 7, 12)

Signal = npt.NDArray[np.float32]


def coloured(rng: np.random.Generator, exponent: float, seconds: int = NOISE_S) -> Signal:
    """Noise of power density ``1 / f**exponent`` (0 white, 1 pink, 2 brown), RMS 0.05."""
    samples = seconds * SAMPLE_RATE_HZ
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ), 20.0)
    signal = np.fft.irfft(spectrum * frequency ** (-exponent / 2), samples)
    return np.asarray(0.05 * signal / signal.std(), dtype=np.float32)


def _hum(rng: np.random.Generator) -> Signal:
    time_s = np.arange(NOISE_S * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    base_hz = rng.choice((50.0, 60.0, 100.0, 120.0))
    harmonics = [
        rng.uniform(0.1, 1) / n * np.sin(2 * np.pi * base_hz * n * time_s) for n in range(1, 9)
    ]
    signal = np.sum(harmonics, axis=0) + 4 * coloured(rng, 1.0)
    return np.asarray(0.05 * signal / signal.std(), dtype=np.float32)


def _clatter(rng: np.random.Generator) -> Signal:
    """Short bursts over faint noise: keys, plates, doors."""
    signal = 0.1 * coloured(rng, 1.0)
    for _ in range(NOISE_S * 3):
        length = int(rng.integers(80, 2_400))
        start = int(rng.integers(0, len(signal) - length))
        burst = rng.standard_normal(length) * np.exp(-np.arange(length) / (length / 5))
        signal[start : start + length] += (rng.uniform(0.02, 0.3) * burst).astype(np.float32)
    return signal.astype(np.float32)


def _babble(rng: np.random.Generator, clips: Sequence[Clip], voices: int) -> Features:
    """Energies of several streams of random clips added up: no word stands out."""
    frames = NOISE_S * 100
    power = np.full((frames, 80), 1e-3, dtype=np.float32)
    for _ in range(voices):
        position = 0
        while position < frames:
            clip = clips[int(rng.integers(len(clips)))].features.astype(np.float32)
            end = min(frames, position + len(clip))
            power[position:end] += np.exp(clip[: end - position])
            position = end + int(rng.integers(0, 30))
    return np.log(power).astype(np.float32)


def noise_features(clips: Sequence[Clip], seed: int) -> list[Features]:
    """Log mel features of all noises, half a minute each, shape ``(frames, 80)``."""
    rng = np.random.default_rng(seed)
    signals = [coloured(rng, exponent) for exponent in (0.0, 0.0, 0.5, 1.0, 1.0, 1.5, 2.0)]
    signals += [_hum(rng), _hum(rng), _clatter(rng), _clatter(rng)]
    noises = [log_mel(signal) for signal in signals]
    return noises + [_babble(rng, clips, voices) for voices in BABBLE_VOICES]
