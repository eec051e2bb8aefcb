"""Core: an incremental, strict reader of RIFF/WAVE files (Microsoft, "Multimedia Programming
Interface and Data Specifications 1.0", and "Multiple Channel Audio Data and WAVE Files").

No library is used, because clients stream WAV files whose headers are split between chunks and
have wrong lengths, and because no number in a header can be trusted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.audio.formats import AudioError

SAMPLE_RATE_HZ_MIN: Final = 4_000
SAMPLE_RATE_HZ_MAX: Final = 192_000
CHANNELS_MAX: Final = 8
FORMAT_BYTES_MAX: Final = 4_096
"""Size limit of the ``fmt`` chunk."""
HEADER_BYTES_MAX: Final = 1 << 20
"""Bytes before the audio data; beyond it ``bad_audio``."""
LENGTHS_UNKNOWN: Final = frozenset({0, 0xFFFFFFFF})
"""Lengths that recorders write before they know the length: the data extends to the end."""

_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_CODINGS: Final = frozenset(
    {*((_PCM, bits) for bits in (8, 16, 24, 32)), (_FLOAT, 32), (_A_LAW, 8), (_MU_LAW, 8)}
)
Floats = npt.NDArray[np.float32]
_GUID_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")


@dataclass(frozen=True, slots=True, kw_only=True)
class WavFormat:
    """The validated content of a ``fmt`` chunk."""

    coding: int
    channels: int
    sample_rate_hz: int
    bits: int

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8


class _Expect(Enum):
    RIFF = auto()
    CHUNK = auto()
    FORMAT = auto()
    DATA = auto()
    TRAILER = auto()


class WavReader:
    """Converts the bytes of a WAV file to mono s16le PCM at the sample rate of the file."""

    def __init__(self) -> None:
        self.format: WavFormat | None = None
        """None until the ``fmt`` chunk is read."""
        self._buffer = bytearray()
        self._expect = _Expect.RIFF
        self._skip_bytes = 0
        self._format_bytes = 0
        self._data_bytes_left: int | None = None
        """None: the data extends to the end."""
        self._pad_bytes = 0
        """RIFF chunks of odd length are followed by one byte."""
        self._header_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the file ends here by its declared lengths."""
        at_end = self._expect is _Expect.TRAILER
        return at_end and not self._buffer and not self._skip_bytes

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return their PCM.

        Data after the declared length is skipped if it looks like RIFF chunks. Otherwise it is
        audio, because recorders often declare the length of the first part.

        Raises:
            AudioError: ``bad_audio``.
        """
        self._buffer += data
        pcm = bytearray()
        while self._advance(pcm):
            pass
        return bytes(pcm)

    def finish(self) -> None:
        """The file ends here. An incomplete sample or chunk is dropped.

        Raises:
            AudioError: ``bad_audio``, because the header is incomplete.
        """
        if self._expect not in (_Expect.DATA, _Expect.TRAILER):
            raise _bad("the WAV header is incomplete")

    def _advance(self, pcm: bytearray) -> bool:
        """Advance one step. False: more bytes are needed."""
        if self._skip_bytes:
            skipped = min(self._skip_bytes, len(self._buffer))
            del self._buffer[:skipped]
            self._skip_bytes -= skipped
            self._count_header(skipped)
            return skipped > 0 and not self._skip_bytes
        if self._expect is _Expect.DATA:
            return self._read_data(pcm)
        needed = {_Expect.RIFF: 12, _Expect.FORMAT: self._format_bytes}.get(self._expect, 8)
        if len(self._buffer) < needed:
            return False
        head = bytes(self._buffer[:needed])
        if self._expect is _Expect.TRAILER and not _looks_like_chunk(head):
            self._expect = _Expect.DATA
            self._data_bytes_left = None
            return True
        del self._buffer[:needed]
        self._count_header(needed)
        if self._expect is _Expect.RIFF:
            if head[:4] != b"RIFF" or head[8:] != b"WAVE":
                raise _bad("not a WAV file")
            self._expect = _Expect.CHUNK
        elif self._expect is _Expect.FORMAT:
            self.format = parse_format(head)
            self._skip_bytes = self._format_bytes & 1
            self._expect = _Expect.CHUNK
        else:
            self._begin_chunk(head[:4], int.from_bytes(head[4:], "little"))
        return True

    def _begin_chunk(self, name: bytes, length: int) -> None:
        if self._expect is _Expect.TRAILER or name not in (b"fmt ", b"data"):
            self._skip_bytes = length + (length & 1)
        elif name == b"fmt ":
            if not 16 <= length <= FORMAT_BYTES_MAX or self.format is not None:
                raise _bad("the WAV fmt chunk has an invalid length, or is repeated")
            self._format_bytes = length
            self._expect = _Expect.FORMAT
        else:
            if self.format is None:
                raise _bad("the WAV data chunk precedes the fmt chunk")
            self._data_bytes_left = None if length in LENGTHS_UNKNOWN else length
            self._pad_bytes = length & 1
            self._expect = _Expect.DATA

    def _count_header(self, count: int) -> None:
        if self._expect is _Expect.TRAILER:
            return
        self._header_bytes += count
        if self._header_bytes > HEADER_BYTES_MAX:
            raise _bad(f"the WAV file has no audio data in its first {HEADER_BYTES_MAX} bytes")

    def _read_data(self, pcm: bytearray) -> bool:
        assert self.format is not None
        left = self._data_bytes_left
        available = len(self._buffer) if left is None else min(left, len(self._buffer))
        whole = available - available % self.format.frame_bytes
        pcm += to_mono_s16(bytes(self._buffer[:whole]), self.format)
        del self._buffer[:whole]
        if left is None:
            return False
        self._data_bytes_left = left = left - whole
        if left >= self.format.frame_bytes:
            return False
        # The declared length may end within a sample; its rest is skipped.
        self._skip_bytes = left + self._pad_bytes
        self._expect = _Expect.TRAILER
        return True


def parse_format(body: bytes) -> WavFormat:
    """Return the validated content of a ``fmt`` chunk.

    Raises:
        AudioError: ``bad_audio`` for an unsupported format.
    """
    coding, channels, rate_hz, _, block_align, bits = struct.unpack_from("<HHIIHH", body)
    if coding == _EXTENSIBLE:
        if len(body) < 40 or body[26:40] != _GUID_TAIL:
            raise _bad("the WAV file's codec is not supported")
        coding = int.from_bytes(body[24:26], "little")
    if (coding, bits) not in _CODINGS:
        raise _bad(f"the WAV file's codec is not supported (format {coding}, {bits} bits)")
    if not 1 <= channels <= CHANNELS_MAX:
        raise _bad(f"the WAV file has {channels} channels; 1 to {CHANNELS_MAX} are supported")
    if not SAMPLE_RATE_HZ_MIN <= rate_hz <= SAMPLE_RATE_HZ_MAX:
        raise _bad(f"the WAV file's sample rate of {rate_hz} Hz is not supported")
    if block_align != channels * bits // 8:
        raise _bad("the WAV header contradicts itself (block_align)")
    return WavFormat(coding=coding, channels=channels, sample_rate_hz=rate_hz, bits=bits)


def to_mono_s16(data: bytes, wav_format: WavFormat) -> bytes:
    """Convert whole frames of ``wav_format`` to mono s16le. Channels are averaged."""
    if (wav_format.coding, wav_format.bits, wav_format.channels) == (_PCM, 16, 1):
        return data
    samples = _to_s16_scale(data, wav_format).reshape(-1, wav_format.channels)
    mono = samples.mean(axis=1, dtype=np.float32)
    pcm: bytes = np.clip(np.rint(mono), -32768, 32767).astype("<i2").tobytes()
    return pcm


def _to_s16_scale(data: bytes, wav_format: WavFormat) -> Floats:
    scaled: Floats
    if wav_format.coding == _FLOAT:
        # A file may contain NaN and infinities.
        finite = np.nan_to_num(np.frombuffer(data, "<f4"), posinf=1, neginf=-1)
        scaled = finite.clip(-1, 1) * np.float32(32768)
    elif wav_format.coding in _LAW_TABLES:
        scaled = _LAW_TABLES[wav_format.coding][np.frombuffer(data, np.uint8)]
    elif wav_format.bits == 8:
        scaled = np.frombuffer(data, np.uint8).astype(np.float32) * 256 - 32768
    elif wav_format.bits == 16:
        scaled = np.frombuffer(data, "<i2").astype(np.float32)
    elif wav_format.bits == 24:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        scaled = wide.view("<i4")[:, 0].astype(np.float32) * np.float32(1 / 65536)
    else:
        scaled = np.frombuffer(data, "<i4").astype(np.float32) * np.float32(1 / 65536)
    return scaled


def _a_law_table() -> Floats:
    """ITU-T G.711 A-law, code to s16."""
    codes = np.arange(256) ^ 0x55
    exponent, mantissa = codes >> 4 & 7, codes & 15
    small = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, small, (small + 256) << np.maximum(exponent - 1, 0))
    return np.where(codes & 0x80, magnitude, -magnitude).astype(np.float32)


def _mu_law_table() -> Floats:
    """ITU-T G.711 µ-law, code to s16."""
    codes = ~np.arange(256) & 255
    magnitude = (((codes & 15) << 3) + 132 << (codes >> 4 & 7)) - 132
    return np.where(codes & 0x80, -magnitude, magnitude).astype(np.float32)


_LAW_TABLES: Final = {_A_LAW: _a_law_table(), _MU_LAW: _mu_law_table()}


def _looks_like_chunk(head: bytes) -> bool:
    """Whether the 8 bytes after the data are the header of a RIFF chunk."""
    name, length = head[:4], int.from_bytes(head[4:], "little")
    return all(0x20 <= byte < 0x7F for byte in name) and length < HEADER_BYTES_MAX


def _bad(message: str) -> AudioError:
    return AudioError("bad_audio", message)
