"""Core: where files end, in containers that declare their length: whether a chunk holds one whole
file, and where another file follows one (``NextFile``).

A stream's slice must never be taken for a file, because what follows would be lost. So a file
counts as whole only if its own header says that it ends with the chunk's last byte: MP4 by its
boxes, WebM by the size of its segment, MP3 by its Xing header, FLAC by its last frame.
"""

from __future__ import annotations

import struct
from typing import Final

from gateway.audio.formats import Container, sniff
from gateway.audio.frames import flac_frame, mp3_frame

WHOLE_FILE_BYTES_MAX: Final = 2 << 20
"""Longer chunks are not looked at: all of a file's audio would be decoded at its end."""
_FLAC_FRAME_BYTES_MAX: Final = 1 << 16
"""Distance of the last frame from the end in which it is looked for."""
_EBML_HEADER: Final = b"\x1a\x45\xdf\xa3"
_EBML_SEGMENT: Final = b"\x18\x53\x80\x67"
_ID3_V1_BYTES: Final = 128


def holds_whole_file(data: bytes) -> bool:
    """Whether ``data`` is one file from its first to its last byte, of a container above."""
    if len(data) > WHOLE_FILE_BYTES_MAX:
        return False
    container = sniff(data)
    if container == "mov":
        return _is_whole_mp4(data)
    if container == "matroska":
        return _is_whole_matroska(data)
    if container == "mp3":
        return _is_whole_mp3(data)
    return container == "flac" and _is_whole_flac(data)


def _is_whole_mp4(data: bytes) -> bool:
    """Whether the boxes end with ``data``, and are not those of a fragmented file, to which
    further fragments may be added."""
    offset = 0
    names: list[bytes] = []
    while offset + 8 <= len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        name = data[offset + 4 : offset + 8]
        if length == 1:
            length = int.from_bytes(data[offset + 8 : offset + 16], "big")
        if length < 8:  # 0: to the end of the file, wherever that is.
            return False
        if name == b"moov" and b"mvex" in data[offset : offset + length]:
            return False
        names.append(name)
        offset += length
    return offset == len(data) and names.count(b"moov") == 1 and b"mdat" in names


def _is_whole_matroska(data: bytes) -> bool:
    header, offset = _ebml_size(data, len(_EBML_HEADER))
    if header is None:
        return False
    offset += header
    if data[offset : offset + 4] != _EBML_SEGMENT:
        return False
    segment, offset = _ebml_size(data, offset + 4)
    return segment is not None and offset + segment == len(data)


def _ebml_size(data: bytes, offset: int) -> tuple[int | None, int]:
    """A size at ``offset`` (RFC 8794), None if it is unknown, and the offset behind it."""
    first = data[offset] if offset < len(data) else 0
    length = 9 - first.bit_length()
    if not first or offset + length > len(data):
        return None, offset
    value = int.from_bytes(data[offset : offset + length], "big") & ((1 << 7 * length) - 1)
    unknown = value == (1 << 7 * length) - 1
    return (None if unknown else value), offset + length


def _is_whole_mp3(data: bytes) -> bool:
    """By the number of bytes in the header of Xing or LAME, in the first frame."""
    begin = 0
    if data.startswith(b"ID3"):
        begin = 10 + sum((byte & 0x7F) << 7 * (3 - n) for n, byte in enumerate(data[6:10]))
    frame = mp3_frame(data[begin : begin + 7])
    if frame is None:
        return False
    head = data[begin : begin + frame[1]]
    place = max(head.find(b"Xing"), head.find(b"Info"))
    if place < 0:
        return False
    flags = int.from_bytes(head[place + 4 : place + 8], "big")
    if not flags & 2:
        return False
    place += 8 + 4 * (flags & 1)
    end = begin + int.from_bytes(head[place : place + 4], "big")
    tag = data[end : end + 3] == b"TAG"
    return len(data) == end + (_ID3_V1_BYTES if tag else 0)


def _is_whole_flac(data: bytes) -> bool:
    """Whether the frame that ends with ``data`` holds the last sample (RFC 9639)."""
    block = int.from_bytes(data[8:10], "big")
    samples = int.from_bytes(data[21:26], "big") & ((1 << 36) - 1)
    if len(data) < 42 or data[4] & 0x7F or not samples:
        return False
    earliest = max(42, len(data) - _FLAC_FRAME_BYTES_MAX)
    begin = data.rfind(b"\xff", earliest, len(data) - 6)
    while begin >= 0:
        if flac_frame(data[begin : begin + 20]) and _flac_end(data[begin:], block) == samples:
            return _crc_16(data[begin:]) == 0
        begin = data.rfind(b"\xff", earliest, begin)
    return False


def _flac_end(frame: bytes, block: int) -> int:
    """The sample behind the frame's last one. ``block``: samples of each frame before it."""
    first = frame[4]
    length = 1 if first < 0x80 else 8 - (first ^ 0xFF).bit_length()
    number = first if length == 1 else first & ((1 << 7 - length) - 1)
    for byte in frame[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    code, rest = frame[2] >> 4, frame[4 + length :]
    if code in (6, 7):
        size = int.from_bytes(rest[: code - 5], "big") + 1
    elif code == 1:
        size = 192
    else:
        size = 576 << code - 2 if code < 6 else 256 << code - 8
    is_sample = frame[1] & 1
    return number * (1 if is_sample else block) + size


def _crc_16(data: bytes) -> int:
    """Of a frame with its checksum behind it: 0 if it fits."""
    checksum = 0
    for byte in data:
        checksum = checksum << 8 & 0xFFFF ^ _CRC_16[checksum >> 8 ^ byte]
    return checksum


def _crc_16_of(byte: int) -> int:
    checksum = byte << 8
    for _ in range(8):
        checksum = checksum << 1 ^ (0x8005 if checksum & 0x8000 else 0)
    return checksum & 0xFFFF


_CRC_16: Final = tuple(map(_crc_16_of, range(256)))


class NextFile:
    """Finds where another file follows an AIFF, AU or MP4 file. Other containers have no end that
    differs from damage, or decoders that read on."""

    CONTAINERS: Final = frozenset({"aiff", "au", "mov"})
    _HEAD_BYTES: Final = 16

    def __init__(self, container: Container) -> None:
        self._container = container
        self._left: int | None = 0
        """Bytes up to where a box or another file begins; None: unknown."""
        self.held = b""
        """The beginning of a box or file, too short to distinguish them."""
        self._has_audio = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take the next bytes. Returns those of this file, and those of the next."""
        taken = bytearray()
        data, self.held = self.held + data, b""
        while data and self._left is not None:
            if self._left:
                taken += data[: self._left]
                passed = min(self._left, len(data))
                data = data[passed:]
                self._left -= passed
                continue
            if len(data) < self._HEAD_BYTES:
                self.held = data
                return bytes(taken), b""
            if self._has_audio and self._begins_file(data[: self._HEAD_BYTES]):
                return bytes(taken), data
            self._left = self._length(data)
        return bytes(taken + data), b""

    def _begins_file(self, head: bytes) -> bool:
        found = sniff(head)
        if found == "mov" == self._container:
            return head[4:8] == b"ftyp"
        return found not in (None, "undecided")

    def _length(self, data: bytes) -> int | None:
        first, second, third = struct.unpack_from(">3I", data)
        if self._container == "mov":
            length = int.from_bytes(data[8:16], "big") if first == 1 else first
            self._has_audio |= data[4:8] == b"mdat"
            return length if length >= 8 else None
        if self._has_audio:
            return None
        self._has_audio = True
        if self._container == "aiff":
            return 8 + second + (second & 1) if second > 4 else None
        return second + third if third not in (0, 0xFFFFFFFF) else None
