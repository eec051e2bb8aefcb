"""Core: frame headers of formats that need no container: MP3, AAC in ADTS and LOAS, AC-3, FLAC, and
packets of MPEG-TS.

A parser of frames returns what all frames of a stream share, and the frame's length in bytes; None
if the bytes are no frame header.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_BITRATES_KBPS: Final = {
    # MPEG 1, layer II and III; the extensions to lower rates, both layers.
    0: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ: Final = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}
_AAC_RATES: Final = 13
_XING_BYTES: Final = 16
"""Its name, its flags, and the numbers of frames and bytes."""
_ADTS_HEADER_BYTES: Final = 7
_AC3_KBPS: Final = (*_BITRATES_KBPS[1], 384, 448, 512, 576, 640)
"""Each has two codes."""
_AC3_RATES_HZ: Final = (48_000, 44_100, 32_000)
_AC3_SAMPLES: Final = 1_536
_TS_PACKET_BYTES: Final = 188


def mp3_frame(header: bytes) -> tuple[tuple[int, int, int], int] | None:
    """MPEG audio layer III or II (ISO 11172-3). All frames of a stream have the same version, layer
    and rate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    if layer not in (2, 3):
        return None
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3 or header[3] & 3 == 2:
        return None
    rate_hz = _RATES_HZ[version][rate]
    table = 2 if version != 3 else 1 if layer == 3 else 0
    bitrate_bps = _BITRATES_KBPS[table][bitrate - 1] * 1000
    length = _mp3_samples(version, layer) // 8 * bitrate_bps // rate_hz + (header[2] >> 1 & 1)
    return (version, layer, rate), length


def mp3_frame_s(kind: tuple[int, int, int]) -> float:
    """Duration of a frame of this version, layer and rate."""
    version, layer, rate = kind
    return _mp3_samples(version, layer) / _RATES_HZ[version][rate]


def _mp3_samples(version: int, layer: int) -> int:
    return 576 if version != 3 and layer == 3 else 1152


def xing(frame: bytes) -> tuple[int, int]:
    """Number of frames and of bytes of an MP3 file, by the header of Xing or LAME that its first
    frame may hold; 0: not declared."""
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0 or len(frame) < place + _XING_BYTES:
        return 0, 0
    has_frames, has_bytes = frame[place + 7] & 1, frame[place + 7] & 2
    first, second = (int.from_bytes(frame[place + n : place + n + 4], "big") for n in (8, 12))
    return first if has_frames else 0, (second if has_frames else first) if has_bytes else 0


def aac_frame(header: bytes) -> tuple[tuple[int, ...], int] | None:
    """AAC in ADTS (ISO 13818-7). Frames of a stream have the same profile, rate and channels."""
    if len(header) < _ADTS_HEADER_BYTES or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    rate = header[2] >> 2 & 15
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    if rate >= _AAC_RATES or length <= _ADTS_HEADER_BYTES:
        return None
    return (header[1], header[2] & 0xFD, header[3] & 0xC0), length


def ac3_frame(header: bytes) -> tuple[tuple[int, ...], int] | None:
    """AC-3 and E-AC-3 (ETSI TS 102 366). Frames of a stream have the same version and rate."""
    if len(header) < 6 or not header.startswith(b"\x0b\x77"):
        return None
    rate, version = header[4] >> 6, header[5] >> 3
    if 10 < version <= 16:
        return (version,), 2 * (1 + ((header[2] & 7) << 8 | header[3]))
    code = header[4] & 63
    if version > 10 or rate == 3 or code >= 2 * len(_AC3_KBPS):
        return None
    words = _AC3_KBPS[code >> 1] * 1000 * _AC3_SAMPLES // _AC3_RATES_HZ[rate] // 16
    return (version, rate), 2 * (words + (code & 1 if rate == 1 else 0))


def loas_frame(header: bytes) -> tuple[tuple[()], int] | None:
    """AAC in LATM and LOAS (ISO 14496-3)."""
    if len(header) < 3 or header[0] != 0x56 or header[1] & 0xE0 != 0xE0:
        return None
    return (), 3 + ((header[1] & 0x1F) << 8 | header[2])


def ts_packet(header: bytes) -> tuple[tuple[()], int] | None:
    """MPEG-TS (ISO 13818-1): a packet without an error, which has a payload or other fields."""
    is_packet = len(header) > 3 and header[0] == 0x47 and not header[1] & 0x80 and header[3] & 0x30
    return ((), _TS_PACKET_BYTES) if is_packet else None


class FlacFrame(NamedTuple):
    number: int
    """Of the frame, or of its first sample if ``is_sample``."""
    is_sample: bool
    samples: int


def flac_frame(data: bytes) -> FlacFrame | None:
    """The frame of FLAC (RFC 9639) with whose header ``data`` begins, by its checksum."""
    if len(data) < 6 or data[0] != 0xFF or data[1] & 0xFE != 0xF8:
        return None
    # The number of the frame or sample, coded like UTF-8.
    first, size = data[4], data[2] >> 4
    number_bytes = 1 if first < 0x80 else 8 - (first ^ 0xFF).bit_length()
    if first & 0xC0 == 0x80 or number_bytes > 7 or not size:
        return None
    size_at = 4 + number_bytes
    size_bytes = {6: 1, 7: 2}.get(size, 0)
    end = size_at + size_bytes + {12: 1, 13: 2, 14: 2}.get(data[2] & 15, 0)
    if len(data) <= end or _crc_8(data[:end]) != data[end]:
        return None
    number = first if number_bytes == 1 else first & 0x7F >> number_bytes
    for byte in data[5:size_at]:
        number = number << 6 | byte & 0x3F
    if size_bytes:
        samples = int.from_bytes(data[size_at : size_at + size_bytes], "big") + 1
    elif size < 6:
        samples = 192 if size == 1 else 576 << size - 2
    else:
        samples = 256 << size - 8
    return FlacFrame(number, bool(data[1] & 1), samples)


def _crc_8(data: bytes) -> int:
    checksum = 0
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x07 if checksum & 0x80 else 0)) & 0xFF
    return checksum
