"""Core: where files end, in containers that declare their length: whether a chunk holds one whole
file, and where another file follows one (``NextFile``).

A stream's slice must never be taken for a file, because what follows would be lost. So a file
counts as whole only if its own header says that it ends with the chunk's last byte: MP4 by its
boxes, WebM by the size of its segment, MP3 by its Xing header, FLAC by its last frame.
"""

from __future__ import annotations

import re
import struct
from itertools import islice
from typing import Final

from gateway.audio.file_units import (
    HEAD_BYTES,
    IncompleteError,
    Unit,
    UnitReader,
    ebml_size,
    reader,
    tag_bytes,
)
from gateway.audio.formats import (
    FRAME_FIRST_BYTE,
    SNIFF_BYTES_MAX,
    Container,
    repeats,
    sniff,
)
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
    header, offset = ebml_size(data, len(_EBML_HEADER))
    if header is None:
        return False
    offset += header
    if data[offset : offset + 4] != _EBML_SEGMENT:
        return False
    segment, offset = ebml_size(data, offset + 4)
    return segment is not None and offset + segment == len(data)


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


_BEGINNING: Final = re.compile(
    rb"R(?:IFF|F64|IFX).{4}(?:WAVE|AVI )|FORM.{4}AIF[FC]|fLaC[\x00\x80]\x00\x00\x22"
    rb"|OggS\x00\x02\x00{8}|\x1a\x45\xdf\xa3(?:[\x80-\xff]|\x01\x00{6}.)\x42\x86"
    rb"|ID3[\x02-\x04]\x00[\x00-\xf0][\x00-\x7f]{4}[A-Z\x00]|\x00\x00[\x00\x01].ftyp[ -~]{4}"
    rb"|#!AMR(?:-WB)?\n|caff\x00\x01\x00\x00desc|\.snd\x00\x00.{6}\x00\x00\x00."
    rb"|FLV\x01[\x01\x04\x05]\x00\x00\x00\x09|wvpk.{4}[\x02-\x10]\x04|TTA1[\x01\x02]\x00"
    rb"|MAC .\x0f|\.RMF\x00\x00\x00\x12|Creative Voice File\x1a|NIST_1A\n"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9|riff\x2e\x91\xcf\x11\xa5\xd6",
    re.DOTALL,
)
"""Beginnings of the containers that messages name. They are longer than those of ``sniff``,
because four bytes are found by chance anywhere in a long stream."""
_BEGINNING_BYTES_MAX: Final = 20
_FRAME: Final = re.compile(rb"\xff[\xe2-\xe5\xf0-\xf5\xf8-\xfd]")
"""The first two bytes of frames of MP3 and AAC."""
CANDIDATES_MAX: Final = 256
"""Places in one piece of a file that are examined because they look like the beginning of another
one. Real audio has a tenth of them; the bytes behind more of them belong to this file."""
_TAG_BYTES_MAX: Final = 1 << 20
"""A longer tag is the beginning of a file, whatever follows it."""
_UNIT_BYTES_MIN: Final = 16
_WITHOUT_SYNC: Final = frozenset({"amr", "au", "aiff", "caf", "w64", "voc", "wav"})
"""Their decoders take all bytes for audio. Others find the next intact unit."""
_OF_FRAMES: Final = frozenset({"mp3", "aac"})
_WITHOUT_FRAMES: Final = frozenset(
    {"flac", "au", "aiff", "caf", "w64", "voc", "nistsphere", "ircam", "epaf", "pvf", "sox", "avr"}
)
"""Others may hold the frames of MP3 or AAC, with which a file without a tag begins."""


class NextFile:
    """Finds where another file follows one: where a unit of it ends (``file_units``). If its units
    have no known length, or are damaged, it searches for the beginning of a file.

    ``container`` None: it is unknown.
    """

    def __init__(self, container: Container | None) -> None:
        self._container = container
        self._read: UnitReader | None = None
        """None: search."""
        self._begun = False
        self._at_start = True
        """The bytes fed next begin this file, and no other one."""
        self._left = 0
        """Bytes up to where a unit or another file begins."""
        self.held = b""
        """The beginning of a unit or file, too short to distinguish them."""
        self._has_audio = False
        self.only_tags = True
        """Nothing but tags was found, which may precede any file."""
        self._lost_at: int | None = None
        """Where in the bytes fed now the units end, and no file begins."""
        self.unknown_bytes = 0
        """Bytes other than zero behind that place, which may not be decoded."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take the next bytes. Returns those of this file, and those of the next."""
        data, self.held = self.held + data, b""
        if not self._begun:
            if len(data) < HEAD_BYTES:
                self.held = data
                return b"", b""
            self._begun = True
            self._read = reader(self._container, data)
            self.only_tags = self._read is not None
        try:
            end = self._walk(data)
            rest = data[end:]
        except _HoldError as hold:
            end, rest, self.held = hold.place, b"", data[hold.place :]
        own = data[:end]
        self._at_start = self._at_start and not own
        if self._lost_at is not None:
            unknown = own[self._lost_at :]
            self.unknown_bytes += len(unknown) - unknown.count(0)
            if self._container in _WITHOUT_SYNC:
                own = own[: self._lost_at]
            self._lost_at = 0
        return own, rest

    def _walk(self, data: bytes) -> int:
        """Return where another file begins in ``data``, or its length."""
        place = 0
        while self._read is not None:
            passed = min(self._left, len(data) - place)
            place += passed
            self._left -= passed
            if place == len(data):
                return place
            if len(data) - place < _UNIT_BYTES_MIN:
                raise _HoldError(place)
            # Frames have no signature, so that this file's own come first.
            is_frame = self._container in _OF_FRAMES and data.startswith(FRAME_FIRST_BYTE, place)
            unit = self._unit(data, place) if is_frame else None
            if unit is None and self._has_audio and self._begins_file(data, place):
                return place
            unit = unit or self._unit(data, place)
            if unit is None:
                self._read = None
                self.only_tags = False
                self._lost_at = place if self._has_audio else None
            else:
                self._left = unit.length
                self._has_audio = self._has_audio or unit.has_audio
        return self._search(data, max(place, int(self._at_start)))

    def _unit(self, data: bytes, place: int) -> Unit | None:
        assert self._read is not None
        try:
            unit = self._read(data, place)
        except (IncompleteError, IndexError, struct.error) as error:
            raise _HoldError(place) from error
        if unit is not None and unit.length <= 0:
            unit = None  # The length is damaged.
        length = 0 if unit else tag_bytes(data, place)
        self.only_tags = self.only_tags and unit is None
        # A file with a tag before it is taken for MP3.
        return Unit(length, has_audio=self._container in _OF_FRAMES) if length else unit

    def _search(self, data: bytes, place: int) -> int:
        patterns = (_BEGINNING, _FRAME) if self._container in _WITHOUT_FRAMES else (_BEGINNING,)
        for pattern in patterns:
            for found in islice(pattern.finditer(data, place), CANDIDATES_MAX):
                if self._begins_file(data, found.start()):
                    return found.start()
        raise _HoldError(max(place, len(data) - _BEGINNING_BYTES_MAX + 1))

    def _begins_file(self, data: bytes, place: int) -> bool:
        head = data[place : place + SNIFF_BYTES_MAX]
        found = sniff(head)
        if found == "undecided":
            raise _HoldError(place)
        if found is None or (found == self._container and repeats(found, head)):
            return False
        if not head.startswith(b"ID3"):
            return True
        if self._container in _OF_FRAMES:  # Live streams have tags between their frames.
            return False
        length = tag_bytes(data, place)
        behind = data[place + length : place + length + SNIFF_BYTES_MAX]
        if length <= _TAG_BYTES_MAX and len(behind) < _UNIT_BYTES_MIN:
            raise _HoldError(place)
        return length > _TAG_BYTES_MAX or sniff(behind) is not None


class _HoldError(Exception):
    """More bytes are needed to tell what begins at ``place``."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place
