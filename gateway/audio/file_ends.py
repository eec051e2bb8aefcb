"""Core: where files end, in containers that declare their length: whether a chunk holds one whole
file, where another file follows one (``NextFile``), and the last page of Ogg (``OggPages``).

A stream's slice must never be taken for a file, because what follows would be lost. So a file
counts as whole only if its own header says that it ends with the chunk's last byte: MP4 by its
boxes, WebM by the size of its segment, MP3 by its Xing header, FLAC by its last frame.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final

from gateway.audio.file_units import (
    EBML_SEGMENT,
    HEAD_BYTES,
    OGG_HEADER_BYTES,
    IncompleteError,
    Unit,
    UnitReader,
    ebml_size,
    mov_box,
    ogg_page,
    reader,
    tag_bytes,
)
from gateway.audio.formats import (
    FRAMED,
    SNIFF_BYTES_MAX,
    Container,
    repeats,
    sniff,
)
from gateway.audio.frames import flac_frame, mp3_frame, xing

WHOLE_FILE_BYTES_MAX: Final = 2 << 20
"""Longer chunks are not looked at: all of a file's audio would be decoded at its end."""
_FLAC_FRAME_BYTES_MAX: Final = 1 << 16
"""Distance of the last frame from the end in which it is looked for."""
_FLAC_SYNC: Final = re.compile(rb"\xff[\xf8\xf9]")
_FLAC_HEADER_BYTES_MAX: Final = 16
_EBML_HEADER: Final = b"\x1a\x45\xdf\xa3"
_ID3_V1_BYTES: Final = 128


def holds_whole_file(data: bytes) -> bool:
    """Whether ``data`` is one file from its first to its last byte, of a container above."""
    if len(data) > WHOLE_FILE_BYTES_MAX:
        return False
    is_whole = {
        "mov": _is_whole_mp4,
        "matroska": _is_whole_matroska,
        "mp3": _is_whole_mp3,
        "flac": _is_whole_flac,
    }.get(sniff(data) or "")
    return is_whole is not None and is_whole(data)


def _is_whole_mp4(data: bytes) -> bool:
    """Whether the boxes end with ``data``, and are not those of a fragmented file, to which
    further fragments may be added."""
    offset = 0
    names: list[bytes] = []
    while offset + 8 <= len(data):
        length, name = mov_box(data, offset)
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
    if data[offset : offset + 4] != EBML_SEGMENT:
        return False
    segment, offset = ebml_size(data, offset + 4)
    return segment is not None and offset + segment == len(data)


def _is_whole_mp3(data: bytes) -> bool:
    """By the number of bytes in the header of Xing or LAME, in the first frame."""
    begin = tag_bytes(data, 0) if data.startswith(b"ID3") else 0
    frame = mp3_frame(data[begin : begin + 7])
    if frame is None:
        return False
    _, byte_count = xing(data[begin : begin + frame[1]])
    if not byte_count:
        return False
    end = begin + byte_count
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
        if (frame := flac_frame(data[begin : begin + _FLAC_HEADER_BYTES_MAX])) is not None:
            end = frame.number * (1 if frame.is_sample else block) + frame.samples
            if end == samples:
                (*_, checksum) = _crcs_16(data[begin:])
                return checksum == 0
        begin = data.rfind(b"\xff", earliest, begin)
    return False


def _crcs_16(data: bytes | bytearray) -> Iterator[int]:
    """The checksum up to each byte: 0 behind a frame and its own checksum."""
    checksum = 0
    for byte in data:
        checksum = checksum << 8 & 0xFFFF ^ _CRC_16[checksum >> 8 ^ byte]
        yield checksum


def _crc_16_of(byte: int) -> int:
    checksum = byte << 8
    for _ in range(8):
        checksum = checksum << 1 ^ (0x8005 if checksum & 0x8000 else 0)
    return checksum & 0xFFFF


_CRC_16: Final = tuple(map(_crc_16_of, range(256)))


_BEGINNINGS: Final = {
    0: re.compile(
        rb"R(?:IFF|F64|IFX).{4}(?:WAVE|AVI )|BW64.{4}WAVE|FORM.{4}(?:AIF[FC]|8SVX|MAUD)"
        rb"|fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02\x00{8}"
        rb"|\x1a\x45\xdf\xa3(?:[\x80-\xff]|\x01\x00{6}.)\x42\x86"
        rb"|ID3[\x02-\x04]\x00[\x00-\xf0][\x00-\x7f]{4}[A-Z\x00]|#!AMR(?:-WB)?\n"
        rb"|caff\x00\x01\x00\x00desc|\.snd\x00\x00.{6}\x00\x00\x00."
        rb"|FLV\x01[\x01\x04\x05]\x00\x00\x00\x09|wvpk.{4}[\x02-\x10]\x04|TTA1[\x01\x02]\x00"
        rb"|MAC .\x0f|\.RMF\x00\x00\x00\x12|Creative Voice File\x1a|NIST_1A\n"
        rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9|riff\x2e\x91\xcf\x11\xa5\xd6"
        # IRCAM: the machine, the rate, few channels, and a known coding.
        rb"|\x64\xa3[\x01-\x04]\x00.{3}[\x45-\x48][\x01-\x10]\x00{3}[\x01-\x22]\x00[\x00-\x04]\x00"
        rb"| paf\x00{4}|fap \x00{4}|PVF1\n[1-9]|\.SoX.[\x00\x01]\x00\x00|XoS\.\x00\x00[\x00\x01]."
        rb"|2BIT.{8}(?:\x00\x00|\xff\xff)\x00[\x08\x10]|STRM.{4}\x00\x01\x00\x10"
        rb"|nut/multimedia con|\xb7\xd8\x00\x20\x37\x49\xda\x11|\x06\x0e\x2b\x34\x02\x05\x01\x01"
        rb"|\x7f\xfe\x80\x01[\xfc-\xff]|\xfe\x7f\x01\x80.[\xfc-\xff]"
        rb"|\x1f\xff\xe8\x00\x07[\xf0-\xff]|\xff\x1f\x00\xe8[\xf0-\xff]\x07",
        re.DOTALL,
    ),
    2: re.compile(
        rb"\xa3\x64(?<=\x00[\x01-\x04]..)[\x45-\x48].{3}\x00{3}[\x01-\x10]\x00[\x00-\x04]\x00"
        rb"|\x01\xba(?<=\x00\x00..)(?:[\x44-\x7f].{8}\xf8|[\x21-\x2f].{7})\x00\x00\x01"
        rb"|SMJPEG(?<=\x00\x0aSMJPEG)",
        re.DOTALL,
    ),
    4: re.compile(
        rb"ftyp(?<=\x00\x00[\x00\x01].ftyp)[ -~]{4}"
        rb"|\x01\xbc\x00\x00(?<=\x00{4}.{4})..\x00{4}\xe1\xe2"
        # Check bits, length and time of a unit precede the sync word of MLP and TrueHD.
        rb"|\xf8\x72\x6f[\xba\xbb].{4}\xb7\x52",
        re.DOTALL,
    ),
}
"""Beginnings of files, without their first bytes, of which the key is the number: none begins with
a zero, so that they are found fast. They are longer than those of ``sniff``, because four bytes are
found by chance anywhere in a long stream."""
_BEGINNING_BYTES_MAX: Final = 20
_FRAMES: Final = (
    re.compile(
        rb"\xff(?:[\xe2-\xe5\xf2-\xf5\xfa-\xfd][%s]|[\xf0\xf1\xf8\xf9][%s])"
        % (
            b"".join(rb"\x%x0-\x%xb" % (bitrate, bitrate) for bitrate in range(1, 15)),
            rb"\x01-\x33\x40-\x73\x80-\xb3\xc0-\xf3",
        )
    ),
    re.compile(rb"\x0b\x77|\x56[\xe0-\xff].\x20\x00|G[\x40-\x5f].[\x10-\x3f]", re.DOTALL),
)
"""The first bytes of frames of MP3 and AAC, and of AC-3, LATM and MPEG-TS: those of quiet PCM have
no rate."""
CANDIDATES_MAX: Final = 256
"""Places in one piece of a file that are examined because they look like the beginning of another
one. Real audio has a tenth of them; the bytes behind more of them belong to this file."""
_TAG_BYTES_MAX: Final = 1 << 20
"""A longer tag is the beginning of a file, whatever follows it."""
_UNIT_BYTES_MIN: Final = 16
_WITHOUT_SYNC: Final = frozenset({"amr", "au", "aiff", "caf", "w64", "voc", "wav"})
"""Their decoders take all bytes for audio. Others find the next intact unit."""
_WITH_TAGS: Final = frozenset({"mp3", "aac"})
_WITHOUT_FRAMES: Final = frozenset(
    {"flac", "au", "aiff", "caf", "w64", "voc", "nistsphere", "ircam", "epaf", "pvf", "sox", "avr",
     "iff", "ast", "dts", "mlp", "truehd", "wv", "tta", "ape"}
)  # fmt: skip
"""Others may hold the frames of MP3, say, with which a file without a tag begins."""


def begins_surely(data: bytes) -> bool:
    """Whether a file begins with ``data`` by more than a few bytes, which PCM may have anywhere."""
    return any(pattern.match(data, before) for before, pattern in _BEGINNINGS.items())


def find_beginning(data: bytes) -> int | None:
    """The first place in ``data`` where a file surely begins."""
    found = ((before, pattern.search(data, before)) for before, pattern in _BEGINNINGS.items())
    return min((match.start() - before for before, match in found if match), default=None)


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
        self._is_last = False
        """The stream has ended."""
        self._tail = _FlacTail() if container == "flac" else None
        self._at_start = True
        """The bytes fed next begin this file, and no other one."""
        self._left = 0
        """Bytes up to where a unit or another file begins."""
        self.held = b""
        """The beginning of a unit or file, too short to distinguish them."""
        self._has_audio = False
        self.only_tags = True
        """Nothing but tags was found, which may precede any file."""
        self._is_padded = False
        """Bytes behind the last unit are zeros so far, which may precede any file."""
        self._lost_at: int | None = None
        """Where in the bytes fed now the units end, and no file begins."""
        self._unknown_bytes = 0

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
            self._unknown_bytes += len(unknown) - unknown.count(0)
            if self._container in _WITHOUT_SYNC:
                own = own[: self._lost_at]
            self._lost_at = 0
        if self._tail is not None:
            self._tail.feed(own)
        return own, rest

    def finish(self) -> tuple[bytes, bytes]:
        """No more bytes follow: return the rest of this file, and the next file in it."""
        self._is_last = True
        own, rest = self.feed(b"")
        self._is_last = False  # A page of Ogg may follow nevertheless.
        held, self.held = self.held, b""
        if self._tail is not None:
            self._tail.feed(held)
        return own + held, rest

    @property
    def unknown_bytes(self) -> int:
        """Bytes other than zero that are no part of the file, and may not be decoded."""
        return self._unknown_bytes + (0 if self._tail is None else self._tail.unknown_bytes())

    @property
    def missing_bytes(self) -> int:
        """Bytes of the last unit that have not come, by its own header."""
        return self._left if self._read is not None else 0

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
            known = FRAMED.get(data[place : place + 1], ())
            is_frame = any(container == self._container for container, *_ in known)
            unit = self._unit(data, place) if is_frame else None
            if unit is None and self._has_audio and self._begins_file(data, place):
                return place
            unit = unit or self._unit(data, place)
            if unit is None:
                self._read = None
                self.only_tags = False
                self._lost_at = place if self._has_audio else None
                self._is_padded = self._has_audio
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
        return Unit(length, has_audio=self._container in _WITH_TAGS) if length else unit

    def _search(self, data: bytes, place: int) -> int:
        if self._is_padded:
            behind = len(data) - len(data[place:].lstrip(b"\0"))
            if len(data) - behind >= _UNIT_BYTES_MIN or self._is_last:
                # Here may also be frames, which have no signature.
                if self._begins_file(data, behind):
                    return behind
                self._is_padded = False
        patterns = [*_BEGINNINGS.items()]
        if self._container in _WITHOUT_FRAMES:
            patterns += [(0, frame) for frame in _FRAMES]
        first, is_known = len(data), False
        for before, pattern in patterns:
            for found in islice(pattern.finditer(data, place + before), CANDIDATES_MAX):
                begins = found.start() - before
                if begins >= first:
                    break
                try:
                    begins_file = self._begins_file(data, begins)
                except _HoldError:
                    first, is_known = begins, False
                    break
                if begins_file:
                    first, is_known = begins, True
                    break
        if not is_known and not self._is_last:
            raise _HoldError(min(first, max(place, len(data) - _BEGINNING_BYTES_MAX + 1)))
        return first

    def _begins_file(self, data: bytes, place: int) -> bool:
        head = data[place : place + SNIFF_BYTES_MAX]
        found = sniff(head)
        if found == "undecided" and not self._is_last:
            raise _HoldError(place)
        if (
            found is None
            or found == "undecided"
            or (found == self._container and repeats(found, head))
        ):
            return False
        if not head.startswith(b"ID3"):
            return True
        if self._container in _WITH_TAGS:  # Live streams have tags between their frames.
            return False
        length = tag_bytes(data, place)
        behind = data[place + length : place + length + SNIFF_BYTES_MAX]
        if length <= _TAG_BYTES_MAX and len(behind) < _UNIT_BYTES_MIN and not self._is_last:
            raise _HoldError(place)
        return length > _TAG_BYTES_MAX or sniff(behind) is not None


class _FlacTail:
    """Finds the bytes behind the last frame of FLAC. Frames declare no length, and for the decoder
    all bytes up to the next frame are a part of one."""

    def __init__(self) -> None:
        self._frame = bytearray()
        """The last frame, and the bytes behind it."""
        self._begun = False
        self._further_bytes = 0

    def feed(self, data: bytes) -> None:
        searched = max(int(self._begun), len(self._frame) - _FLAC_HEADER_BYTES_MAX)
        self._frame += data
        begins = 0
        for found in _FLAC_SYNC.finditer(self._frame, searched):
            place = found.start()
            if flac_frame(bytes(self._frame[place : place + _FLAC_HEADER_BYTES_MAX])):
                begins, self._begun = place, True
                self._further_bytes = 0
        del self._frame[:begins]
        further = self._frame[_FLAC_FRAME_BYTES_MAX:]
        self._further_bytes += len(further) - further.count(0)
        del self._frame[_FLAC_FRAME_BYTES_MAX:]

    def unknown_bytes(self) -> int:
        """Count the bytes other than zero behind the frame, which ends with its checksum. Tags are
        no unknown bytes."""
        if not self._begun:
            return 0
        ends = [place for place, left in enumerate(_crcs_16(self._frame), 1) if not left]
        if not ends:  # The file is cut.
            return self._further_bytes
        if ends[-1] == len(self._frame):
            return self._further_bytes
        behind = bytes(self._frame[ends[0] :])
        return 0 if tag_bytes(behind, 0) else len(behind) - behind.count(0) + self._further_bytes


class OggPages:
    """Finds the last page of an Ogg stream (RFC 3533). It does not read what pages contain."""

    _FIRST, _LAST = 2, 4
    HEADERS_BYTES_MAX: Final = 1 << 20
    """Length of ``headers`` that is kept."""

    def __init__(self) -> None:
        self.headers = b""
        """The pages before the first audio, without which no later page can be decoded. Empty if
        they are too long."""
        self._in_headers = True
        self._page = bytearray()
        """The beginning of a page."""
        self._needed = OGG_HEADER_BYTES
        """The page is looked at when it has this many bytes."""
        self._open_streams = 0
        self._lost = False

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; return whether the stream ends exactly after them."""
        self._page += data
        while len(self._page) >= self._needed and not self._lost:
            try:
                page = ogg_page(self._page, 0)
            except IncompleteError:
                break
            if page is None:
                self._lost = True  # The decoder will report the fault.
            elif len(self._page) < page.length:
                self._needed = page.length
            else:
                self._take(bytes(self._page[: page.length]), page.has_audio)
                del self._page[: page.length]
                self._needed = OGG_HEADER_BYTES
        if self._lost:
            self._page.clear()
        return not (self._lost or self._page or self._open_streams)

    def _take(self, page: bytes, has_audio: bool) -> None:
        self._in_headers = self._in_headers and not has_audio
        if self._in_headers:
            self.headers += page
        if len(self.headers) > self.HEADERS_BYTES_MAX:
            self._in_headers, self.headers = False, b""
        is_first, is_last = bool(page[5] & self._FIRST), bool(page[5] & self._LAST)
        # The last page was not the last: such flags mean nothing here.
        self._lost = not self._open_streams and not is_first
        self._open_streams += is_first - is_last


class _HoldError(Exception):
    """More bytes are needed to tell what begins at ``place``."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place
