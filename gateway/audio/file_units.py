"""Core: the units of which files consist, such as boxes, pages and frames.

Walking from unit to unit finds the place where a file ends and another one may begin. Units are
not checked any further, because the decoder does that.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.audio.formats import FRAME_HEADER_BYTES, FRAMED, Container, FrameParser


class Unit(NamedTuple):
    length: int
    has_audio: bool = True


class IncompleteError(Exception):
    """More bytes are needed to read the unit's length."""


UnitReader = Callable[[bytes, int], Unit | None]
"""Returns the unit that begins at an offset of the data; None: there is no unit, or its length is
unknown. May raise ``IncompleteError``; the first ``HEAD_BYTES`` of the unit are there."""
HEAD_BYTES: Final = 32

# ----------------------------------------------------------------------------- chunks with a length


_UNKNOWN_LENGTHS: Final = frozenset({0, 0xFFFFFFFF})


def _chunks(
    name: bytes, length: str, audio: bytes | tuple[bytes, ...], *, header: bytes = b"",
    counts_head: bool = False, align: int = 1, unknown: frozenset[int] = _UNKNOWN_LENGTHS,
) -> UnitReader:  # fmt: skip
    """Reader of chunks that begin with a name, which matches ``name``, and a length. ``header``
    matches the beginning of the file before the first chunk. ``counts_head``: the length is that
    of name and length, too. ``unknown``: lengths that writers to a pipe give to the audio."""
    named, begin = re.compile(name, re.DOTALL), re.compile(header, re.DOTALL)

    def read(data: bytes, offset: int) -> Unit | None:
        if header and (found := begin.match(data, offset)) is not None:
            return Unit(found.end() - offset, has_audio=False)
        if (found := named.match(data, offset)) is None:
            return None
        (size,) = struct.unpack_from(length, data, found.end())
        is_audio = data.startswith(audio, offset)
        if size < 0 or (is_audio and size in unknown):
            return None
        size += 0 if counts_head else found.end() - offset + struct.calcsize(length)
        size += -size % align
        return Unit(size, is_audio) if size >= found.end() - offset else None

    return read


_ASF_NAME: Final = rb".{8}(?:\xa6\xd9\x00\xaa\x00\x62\xce\x6c|\x8e\xe6\x00\xc0\x0c\x20\x53\x65)"
_ASF_DATA: Final = bytes.fromhex("3626b2758e66cf11")
_NO_PACKETS: Final = frozenset({50})
_W64_BEGIN: Final = rb"riff\x2e\x91\xcf\x11.{16}wave.{12}"
_W64_NAME: Final = rb"[ -~]{4}\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_FOUR_LETTERS: Final = rb"[ -~]{4}"


def mov_box(data: bytes, offset: int) -> tuple[int, bytes]:
    """Length and name of the box at ``offset``, of which 16 bytes are there, or all (ISO 14496-12).
    A length of 0: it ends with the file."""
    length, name = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
    return (int.from_bytes(data[offset + 8 : offset + 16], "big") if length == 1 else length), name


def _mov_box(data: bytes, offset: int) -> Unit | None:
    length, name = mov_box(data, offset)
    return Unit(length, name == b"mdat") if length >= 8 and name in _MOV_BOXES else None


_MOV_BOXES: Final = frozenset(
    b"ftyp,styp,etyp,pdin,moov,moof,mfra,mdat,imda,free,skip,wide,junk,meta,meco,sidx,ssix,prft,"
    b"emsg,udta,uuid,bloc,pnot,PICT,hoov,ainf,ccst,afrt,asrt,abst,sefd,mpvd,SDLN".split(b",")
)
"""Of a file's first level. Other bytes behind a file, such as text, resemble boxes of great length.
"""


def _au(data: bytes, offset: int) -> Unit | None:
    magic, begin, length = struct.unpack_from(">4sII", data, offset)
    return Unit(begin + length) if magic == b".snd" and length not in _UNKNOWN_LENGTHS else None


def _flv_tag(data: bytes, offset: int) -> Unit | None:
    if data.startswith(b"FLV", offset):
        return Unit(13, has_audio=False)
    is_tag = data[offset] in (8, 9, 18) and data[offset + 8 : offset + 11] == bytes(3)
    return Unit(15 + _big_24(data, offset + 1), data[offset] == 8) if is_tag else None


def _voc_block(data: bytes, offset: int) -> Unit | None:
    if data.startswith(b"Creative Voice File\x1a", offset):
        return Unit(int.from_bytes(data[offset + 20 : offset + 22], "little"), has_audio=False)
    kind = data[offset]
    length = int.from_bytes(data[offset + 1 : offset + 4], "little")
    if kind == 0:  # The end.
        return Unit(1)
    return Unit(4 + length, kind in (1, 2, 9)) if kind < 10 else None


def _flac_metadata(data: bytes, offset: int) -> Unit | None:
    """Frames have no length, and begin with a byte that no block has."""
    if data.startswith(b"fLaC", offset):
        return Unit(4, has_audio=False)
    return Unit(4 + _big_24(data, offset + 1), has_audio=False) if data[offset] != 0xFF else None


def _rm_packet(data: bytes, offset: int) -> Unit | None:
    name, length = struct.unpack_from(">4sI", data, offset)
    if name in _RM_CHUNKS:
        return Unit(18 if name == b"DATA" else length, has_audio=False)
    version, length = struct.unpack_from(">HH", data, offset)
    if version == length == 0:  # libavformat ends a file so.
        return Unit(8)
    return Unit(length) if version < 2 and length >= 12 else None


_RM_CHUNKS: Final = frozenset({b".RMF", b"PROP", b"CONT", b"MDPR", b"DATA", b"INDX"})


def _mpeg_packet(data: bytes, offset: int) -> Unit | None:
    """Of a program stream (ISO 13818-1, 11172-1): a pack's header, the end code, or a packet."""
    if not data.startswith(b"\0\0\1", offset):
        return None
    name = data[offset + 3]
    if name == 0xBA:
        is_new = data[offset + 4] & 0xC0 == 0x40
        return Unit(14 + (data[offset + 13] & 7) if is_new else 12, has_audio=False)
    if name == 0xB9:
        return Unit(4, has_audio=False)
    length = int.from_bytes(data[offset + 4 : offset + 6], "big")
    return Unit(6 + length, name == 0xBD or 0xC0 <= name < 0xE0) if name > 0xBA else None


def _tta_file(data: bytes, offset: int) -> Unit | None:
    magic, _, _, _, rate_hz, samples = struct.unpack_from("<4s3H2I", data, offset)
    if magic != b"TTA1" or not rate_hz:
        return None
    frames = -(-samples * 245 // (256 * rate_hz))
    header = 22 + 4 * frames + 4
    if len(data) < offset + header:
        raise IncompleteError
    return Unit(header + sum(struct.unpack_from(f"<{frames}I", data, offset + 22)))


def _ape_file(data: bytes, offset: int) -> Unit | None:
    magic, version, *lengths = struct.unpack_from("<4sHH6I", data, offset)
    # Before version 3.98 no field has the length of all frames.
    return Unit(sum(lengths[1:])) if magic == b"MAC " and version >= 3_980 else None


def _big_24(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 3], "big")


# ------------------------------------------------------------------------------------------ frames

_ID3_FOOTER: Final = 0x10
_AMR_HEADERS: Final = (b"#!AMR\n", b"#!AMR-WB\n")


def tag_bytes(data: bytes, offset: int) -> int:
    """Length of the tag at ``offset``, which may follow the audio of any file; 0: there is none."""
    if data.startswith(b"ID3", offset):
        size = 0
        for byte in data[offset + 6 : offset + 10]:
            size = size << 7 | byte & 0x7F
        return 10 + size + (10 if data[offset + 5] & _ID3_FOOTER else 0)
    if data.startswith(b"APETAGEX", offset):
        return 32 + int.from_bytes(data[offset + 12 : offset + 16], "little")
    return 128 if data.startswith(b"TAG", offset) else 0


def _framed(parse: FrameParser) -> UnitReader:
    def read(data: bytes, offset: int) -> Unit | None:
        frame = parse(data[offset : offset + FRAME_HEADER_BYTES])
        return None if frame is None else Unit(frame[1])

    return read


def _amr_frame(sizes: tuple[int, ...]) -> UnitReader:
    def read(data: bytes, offset: int) -> Unit | None:
        for header in _AMR_HEADERS:
            if data.startswith(header, offset):
                return Unit(len(header), has_audio=False)
        head = data[offset]
        size = 0 if head & 0x83 else sizes[head >> 3 & 15]
        return Unit(size) if size else None

    return read


_AMR_FRAME: Final = _amr_frame((13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1))
_AMR_WB_FRAME: Final = _amr_frame((18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1))
"""Frames have one byte more than RFC 4867 has bits for their type."""


OGG_HEADER_BYTES: Final = 27
"""Without the lengths of its segments."""


def ogg_page(data: bytes | bytearray, offset: int) -> Unit | None:
    """A page of Ogg (RFC 3533)."""
    if not data.startswith(b"OggS", offset):
        return None
    begin = offset + OGG_HEADER_BYTES
    segments = data[begin : begin + data[offset + 26]]
    if len(segments) < data[offset + 26]:
        raise IncompleteError
    # The position of its last sample: pages of headers have none.
    has_audio = any(data[offset + 6 : offset + 14])
    return Unit(OGG_HEADER_BYTES + len(segments) + sum(segments), has_audio)


# ---------------------------------------------------------------------------------- EBML (RFC 8794)

EBML_SEGMENT: Final = b"\x18\x53\x80\x67"
_EBML_CLUSTER: Final = b"\x1f\x43\xb6\x75"
_EBML_OTHERS: Final = ("e7", "a7", "ab", "af", "ec", "bf", "5854")
_EBML_BLOCKS: Final = (b"\xa0", b"\xa3")
_EBML_IN_CLUSTER: Final = (*_EBML_BLOCKS, *(bytes.fromhex(name) for name in _EBML_OTHERS))


def ebml_size(data: bytes, offset: int) -> tuple[int | None, int]:
    """A size at ``offset``, None if it is unknown, and the offset behind it."""
    first = data[offset] if offset < len(data) else 0
    length = 9 - first.bit_length()
    if not first or offset + length > len(data):
        return None, offset
    value = int.from_bytes(data[offset : offset + length], "big") & ((1 << 7 * length) - 1)
    unknown = value == (1 << 7 * length) - 1
    return (None if unknown else value), offset + length


def _ebml_element(data: bytes, offset: int) -> Unit | None:
    """The segment, and a live cluster, are entered: only their heads are units."""
    id_bytes = 9 - data[offset].bit_length()
    size, end = ebml_size(data, offset + id_bytes)
    name = data[offset : offset + id_bytes]
    if id_bytes > 4 or (id_bytes < 4 and name not in _EBML_IN_CLUSTER):
        return None
    head = end - offset
    if name == EBML_SEGMENT or (name == _EBML_CLUSTER and size is None):
        return Unit(head, has_audio=False)
    return None if size is None else Unit(head + size, name in (_EBML_CLUSTER, *_EBML_BLOCKS))


# --------------------------------------------------------------------------------------------------

READERS: Final[dict[Container, UnitReader]] = {
    "wav": _chunks(_FOUR_LETTERS, "<I", b"data", header=rb"R(?:IFF|F64).{4}WAVE", align=2),
    "avi": _chunks(rb"RIFF", "<I", b"RIFF", align=2),
    "aiff": _chunks(rb"FORM", ">I", b"FORM", align=2),
    "caf": _chunks(_FOUR_LETTERS, ">q", b"data", header=rb"caff\x00\x01\x00\x00"),
    "asf": _chunks(_ASF_NAME, "<Q", _ASF_DATA, counts_head=True, unknown=_NO_PACKETS),
    "w64": _chunks(_W64_NAME, "<Q", b"data", header=_W64_BEGIN, counts_head=True, align=8),
    "rm": _rm_packet,
    "wv": _chunks(rb"wvpk", "<I", b"wvpk"),
    "mov": _mov_box,
    "au": _au,
    "flv": _flv_tag,
    "voc": _voc_block,
    "flac": _flac_metadata,
    "tta": _tta_file,
    "ape": _ape_file,
    "mpeg": _mpeg_packet,
    "iff": _chunks(
        _FOUR_LETTERS, ">I", (b"BODY", b"MDAT"), header=rb"FORM.{4}(?:8SVX|MAUD)", align=2
    ),
    "amr": _AMR_FRAME,
    "ogg": ogg_page,
    "matroska": _ebml_element,
    **{container: _framed(parse) for known in FRAMED.values() for container, parse, _ in known},
}


def reader(container: Container | None, data: bytes) -> UnitReader | None:
    """The reader of the units of a file that begins with ``data``; None: they cannot be read.
    ``container`` None: it is unknown."""
    if container is None:
        return None
    return _AMR_WB_FRAME if data.startswith(_AMR_HEADERS[1]) else READERS.get(container)
