"""Core: whether a stretch of sound is a tone, such as a busy or ringback tone (ITU-T E.180). Speech
detection takes one for speech where it begins and ends.

A tone is one or two sine waves: nearly all power of nearly each frame is in two narrow bands. Of
speech, in which a voice has many harmonics, this is true of fewer frames: at most 41 % of the
audible ones in 1,160 digits of 14 voices, against 81 % or more in tones with pauses on a clear
line. A vowel alone can have more of them.

The keys of a telephone (DTMF, ITU-T Q.23) may sound for only 50 ms, so that most frames have an
edge, at which the bands are wider. But each of their two waves is one of four: this is true of 73 %
or more of their audible frames, and of at most 13 % in any half second of 40 recordings of speech.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy import fft  # numpy itself imports it with the first use: in the first session.
from numpy.typing import NDArray

from gateway.audio.timeline import FRAME_SAMPLES
from wire.messages import SAMPLE_RATE_HZ

FRAMES_MAX: Final = 64
"""Frames that are looked at."""
FIRST_FRAMES: Final = 12
"""Frames of a first, cheaper look, which most speech does not pass."""
FIRST_TONE_FRAMES_MIN: Final = 0.4
"""Share of them that must be tones for the second look. In tones with pauses it is at least 0.5."""
AUDIBLE_SHARE: Final = 1e-3
"""Frames with less power, of that of the loudest frame, are pauses."""
BANDS: Final = 2
BAND_BINS: Final = 2
"""Bins of 31 Hz on each side of a band's middle."""
BANDS_POWER_MIN: Final = 0.997
"""Of a frame's power. Vowels of a high voice reach 0.995: with 0.99 a single "three" was a tone."""
TONE_FRAMES_MIN: Final = 0.65
WORD_FRAMES: Final = 38
"""A shorter sound, below 1.2 s, may be a single word, whose vowel resembles a tone …"""
WORD_TONE_FRAMES_MIN: Final = 0.8
"""… so that nearly all of it must be one."""
KEY_ROWS_HZ: Final = (697, 770, 852, 941)
KEY_COLUMNS_HZ: Final = (1_209, 1_336, 1_477, 1_633)
KEY_POWER_MIN: Final = 0.8
"""Of a frame's power, in the band of a row and that of a column together."""
KEY_WAVE_POWER_MIN: Final = 0.1
"""In either of them."""
KEY_FRAMES_MIN: Final = 0.65
_PLACES = np.arange(FRAMES_MAX) * 0.618_034 % 1
"""Positions of the frames, as a share of the sound. Multiples of the golden ratio are spread
evenly, and do not coincide with the regular pauses of a tone."""
_BAND = np.arange(-BAND_BINS, BAND_BINS + 1)
_WINDOW = np.hanning(FRAME_SAMPLES).astype(np.float32)


def _bands(frequencies_hz: tuple[int, ...]) -> NDArray[np.intp]:
    """The bins of each frequency's band, in spectra without margins."""
    middles = np.rint(np.array(frequencies_hz) * FRAME_SAMPLES / SAMPLE_RATE_HZ).astype(np.intp)
    return middles[:, None] + _BAND


_ROWS, _COLUMNS = _bands(KEY_ROWS_HZ), _bands(KEY_COLUMNS_HZ)


def is_tone(pcm: bytes) -> bool:
    """Whether ``pcm``, mono s16le at 16 kHz, is a tone or the keys of a telephone, with or without
    pauses."""
    whole = len(pcm) // (2 * FRAME_SAMPLES) * FRAME_SAMPLES
    frames = np.frombuffer(pcm, "<i2")[:whole].reshape(-1, FRAME_SAMPLES)
    needed = WORD_TONE_FRAMES_MIN if len(frames) < WORD_FRAMES else TONE_FRAMES_MIN
    tones, keys = _shares(_spread(frames, FIRST_FRAMES))
    if tones < FIRST_TONE_FRAMES_MIN and keys < FIRST_TONE_FRAMES_MIN:
        return False
    tones, keys = _shares(_spread(frames, FRAMES_MAX))
    return tones >= needed or keys >= KEY_FRAMES_MIN


def _spread(frames: NDArray[np.int16], count: int) -> NDArray[np.int16]:
    if len(frames) <= count:
        return frames
    spread: NDArray[np.int16] = frames[(_PLACES[:count] * len(frames)).astype(int)]
    return spread


def _shares(frames: NDArray[np.int16]) -> tuple[float, float]:
    """Of the audible ones of ``frames``, the share that are tones, and the share that are keys; 0
    without any."""
    centred = frames - frames.mean(axis=1, keepdims=True, dtype=np.float32)
    spectrum = fft.rfft(centred * _WINDOW, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    totals = power.sum(axis=1)
    audible = totals > max(1.0, AUDIBLE_SHARE * totals.max(initial=0.0))
    if not audible.any():
        return 0.0, 0.0
    power, totals = power[audible], totals[audible]
    return _tone_share(power, totals), _key_share(power, totals)


def _tone_share(power: NDArray[np.float32], totals: NDArray[np.float32]) -> float:
    power = np.pad(power, ((0, 0), (BAND_BINS, BAND_BINS)))
    in_bands = np.zeros(len(power), np.float32)
    rows = np.arange(len(power))[:, None]
    for _ in range(BANDS):
        bins = power.argmax(axis=1)[:, None] + _BAND
        in_bands += power[rows, bins].sum(axis=1)
        power[rows, bins] = 0
    return float((in_bands >= BANDS_POWER_MIN * totals).mean())


def _key_share(power: NDArray[np.float32], totals: NDArray[np.float32]) -> float:
    row, column = (power[:, bins].sum(axis=2).max(axis=1) for bins in (_ROWS, _COLUMNS))
    is_key = row + column >= KEY_POWER_MIN * totals
    is_key &= np.minimum(row, column) >= KEY_WAVE_POWER_MIN * totals
    return float(is_key.mean())
