"""Core: G.711 (ITU-T G.711), the codec of telephones: one byte is one sample."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Law = Literal["ulaw", "alaw"]
SAMPLE_RATE_HZ: Final = 8_000
_SEGMENTS = np.arange(256)


def _ulaw() -> NDArray[np.int16]:
    code = ~_SEGMENTS & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype("<i2")


def _alaw() -> NDArray[np.int16]:
    code = _SEGMENTS ^ 0x55
    exponent = code >> 4 & 7
    low = (code & 0x0F) << 4
    magnitude = np.where(exponent, low + 0x108 << np.maximum(exponent - 1, 0), low + 8)
    return np.where(code & 0x80, magnitude, -magnitude).astype("<i2")


_SAMPLES: Final = {"ulaw": _ulaw(), "alaw": _alaw()}


def to_pcm(data: bytes, law: Law) -> bytes:
    """Return the samples of ``data`` as s16le PCM at 8 kHz."""
    return _SAMPLES[law][np.frombuffer(data, np.uint8)].tobytes()
