"""Core: many channels, or many tracks, to one, in which speech on any of them is heard.

The mean of all channels holds the speech of each, but channels in opposite phase cancel each other,
and a single speaker among many channels becomes quiet. So the mean is used while it is loud enough,
and otherwise the loudest channel. Tracks, such as two languages of a film, are never mixed: the
loudest is used.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

BLOCK_S: Final = 0.032
"""The choice is made for blocks of this length, aligned in the stream, so that it does not depend
on how the audio arrives."""
HUM_WINDOW_S: Final = 0.005
"""Mains hum and an offset are no speech: power is measured without the mean of so many seconds,
which leaves little below 100 Hz …"""
HUM_SHARE: Final = 1e-3
"""… and a small share of all, for sounds that have nothing else."""
DECAY: Final = 0.9
"""Decay of the power of earlier blocks, by block: the choice follows the last third of a second."""
MEAN_POWER_MIN: Final = 1 / 4.5
"""Least power of the mean, relative to the loudest channel, at which the mean is used. It has 1/4
if all but one of two channels are silent."""

Samples = npt.NDArray[np.float32]


class Downmix:
    """Mono of ``channels`` at ``sample_rate_hz``. Holds back less than a block until ``flush``."""

    def __init__(self, channels: int, sample_rate_hz: int, *, mix: bool = True) -> None:
        self._block = max(1, round(BLOCK_S * sample_rate_hz))
        self._window = max(1, round(HUM_WINDOW_S * sample_rate_hz)) | 1
        self._mix = mix
        self.powers = [0.0] * channels
        self._mean_power = 0.0
        self._held: Samples = np.empty((0, channels), np.float32)
        self.blocks: Counter[int | None] = Counter()
        """Number of audible blocks by the channel that was used, counted from 0; None: the mean."""

    def feed(self, samples: Samples) -> Samples:
        """Take samples of shape ``(n, channels)``. Returns those of the blocks that are full."""
        samples = np.concatenate([self._held, samples]) if len(self._held) else samples
        whole = len(samples) - len(samples) % self._block
        self._held = samples[whole:].copy()
        return self._choose(samples[:whole])

    def flush(self) -> Samples:
        """The samples held back."""
        held, self._held = self._held, self._held[:0]
        return self._choose(held)

    def _choose(self, samples: Samples) -> Samples:
        if not len(samples):
            return np.empty(0, np.float32)
        mono: Samples = samples.mean(axis=1, dtype=np.float32)
        starts = range(0, len(samples), self._block)
        sums = self._powers(samples)
        mean_sums = self._powers(mono[:, np.newaxis])[:, 0]
        for start, powers, mean_power in zip(
            starts, sums.tolist(), mean_sums.tolist(), strict=True
        ):
            used = self._choice(powers, mean_power)
            if used is not None:
                mono[start : start + self._block] = samples[start : start + self._block, used]
        return mono

    def _powers(self, samples: Samples) -> npt.NDArray[np.float64]:
        """The power of each block, by channel. The last block may be a part of one."""
        whole = len(samples) // self._block
        blocks = samples[: whole * self._block].reshape(whole, self._block, samples.shape[1])
        parts = [_power(blocks, self._window)]
        if rest := len(samples) % self._block:
            parts.append(_power(samples[np.newaxis, -rest:], self._window))
        return np.concatenate(parts)

    def _choice(self, powers: list[float], mean_power: float) -> int | None:
        self.powers = [
            DECAY * before + now for before, now in zip(self.powers, powers, strict=True)
        ]
        self._mean_power = DECAY * self._mean_power + mean_power
        loudest = max(self.powers)
        used: int | None = self.powers.index(loudest)
        if self._mix and self._mean_power >= MEAN_POWER_MIN * loudest:
            used = None
        if loudest > 0:
            self.blocks[used] += 1
        return used


def to_s16(samples: Samples) -> npt.NDArray[np.int16]:
    """Return ``samples`` on the scale of 16 bits as such."""
    s16: npt.NDArray[np.int16] = np.clip(np.rint(samples), -32768, 32767).astype("<i2")
    return s16


def _power(blocks: Samples, window: int) -> npt.NDArray[np.float64]:
    """The power of ``blocks``, of shape (blocks, samples, channels), nearly without hum."""
    wide = blocks.astype(np.float64)
    power: npt.NDArray[np.float64] = np.einsum("bsc,bsc->bc", wide, wide)
    if wide.shape[1] <= window:
        return power
    sums = np.cumsum(wide, axis=1)
    begin = window // 2 + 1
    wide = wide[:, begin : begin + wide.shape[1] - window]
    wide = wide - (sums[:, window:] - sums[:, :-window]) / window
    above: npt.NDArray[np.float64] = np.einsum("bsc,bsc->bc", wide, wide)
    return above + HUM_SHARE * power


def notice(kind: str, count: int, blocks: Counter[int | None]) -> str:
    """Return a message that names the used channels or tracks (``kind``) of ``count``; empty if the
    mean of all was used. ``blocks`` as ``Downmix.blocks``."""
    used = sorted(number for number in blocks if number is not None)
    if not used or blocks[None] > blocks.total() / 2 or (kind == "track" and used == [0]):
        return ""
    numbers = ", ".join(str(number + 1) for number in used)
    return f"of {count} audio {kind}s, the loudest alone was used: number {numbers}"
