"""Core: names of files that clients send by mistake: files that are no audio, and pieces of streams
without the beginning that is needed to decode them."""

from __future__ import annotations

import codecs
import re
import struct
from typing import Final

_TEXT_BYTES_MIN: Final = 4
_TEXT_JUDGED_BYTES: Final = 4_096
_TEXT_VALUES_MIN: Final = 6
"""Fewest different letters, or different values of every second byte."""
_WORD_ENDS: Final = " \t\n\u3000，。、"
_WORD_ENDS_SHARE_MIN: Final = 0.01
_USUAL_LETTERS: Final = re.compile("[\t-\x7e\u3000-\u30ff\u4e00-\u9fff\uff01-\uff60]")
_USUAL_LETTERS_SHARE_MIN: Final = 0.9
_TEXT_CODE_BYTES_MIN: Final = 512
"""This many bytes without a control character are text in some code: PCM has zeros, or bytes of all
values."""
_SPACES: Final = b" \t\n\r"
_QUIET_MU_LAW: Final = (bytes(range(0x60, 0x80)), bytes(range(0xE0, 0x100)))
"""Quiet samples of µ-law, of either sign."""
_QUIET_MU_LAW_SHARE_MIN: Final = 0.1
_CONTROLS: Final = frozenset((*range(32), 0x7F)) - frozenset(b"\t\n\r\f\x1b")
_UTF_MARKS: Final = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_UTF_16_CODES: Final = ("utf-16-le", "utf-16-be")
"""Without their mark. Samples of PCM are often zero, or small, which no letter is."""

_JOINED_LATE: Final = "a {} stream without its beginning, which is needed to decode it"
# (offset, bytes, name)
_FOREIGN: Final = (
    (0, b"\x89PNG\r\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBPVP8", "a WebP image"),
    (0, (b"II*\0", b"MM\0*"), "a TIFF image"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, (b"PK\3\4", b"PK\5\6"), "a ZIP archive"),
    (0, b"\x1f\x8b\x08", "a gzip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, (b"\x7fELF", b"\0asm", b"\xca\xfe\xba\xbe"), "a program"),
    (0, b"MThd", "a MIDI file, which has notes and no sound"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    (0, b"#!SILK", "a SILK recording, which libavcodec does not decode"),
    (1, b"#!SILK", "a SILK recording, which libavcodec does not decode"),  # Of WeChat and QQ.
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"MATLAB 5", "a MATLAB file"),
    (0, (b"\0ds.", b"dns."), "a little-endian AU file, which libavformat does not read"),
    (0, b"YUV4MPEG2 ", "a raw video"),
    (0, (b"\x01\xda\0\x01", b"\x01\xda\x01\x01"), "an SGI image"),
    (0, b"\x0a\x05\x01\x08", "a PCX image"),
    (0, b"DDS \x7c", "a DDS image"),
    (0, b"P5\n", "a PGM image"),
    (0, b"P6\n", "a PPM image"),
    (0, b"qoif", "a QOI image"),
    (0, b"icns", "an icon"),
    (0, b"TZif", "a time zone file"),
    (0, b"\xde\x12\x04\x95", "a message catalogue"),
    (0, b"!<arch>\n", "an archive"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"wOF", "a font"),
    (0, b"SOUND SAMPLE DATA ", "a Turtle Beach sample, which libavformat does not read"),
    (0, b"SOUND\x1a", "a Sndtool file, which libavformat does not read"),
    (0, b"Extended Instrument: ", "a FastTracker instrument"),
    (0, b"\x37\0\0\x10\x6d\0\0\x10", "a Psion recording, which libavformat does not read"),
    (0, b"OggS", _JOINED_LATE.format("Ogg")),
    (0, b"\x1f\x43\xb6\x75", _JOINED_LATE.format("WebM")),  # A cluster.
    (4, (b"moof", b"styp", b"sidx"), _JOINED_LATE.format("MP4")),
)
_ICON_IMAGES_MAX: Final = 16
# Files whose first bytes are too few to distinguish them from PCM: (pairs of offset and bytes,
# name).
_FOREIGN_BY_PARTS: Final = (
    (((0, b"BM"), (6, b"\0\0\0\0")), "a BMP image"),
    # The number of images, whose headers of 16 bytes precede the first image.
    *(
        (((0, struct.pack("<3H", 0, 1, n)), (18, struct.pack("<I", 6 + 16 * n))), "an icon")
        for n in range(1, _ICON_IMAGES_MAX + 1)
    ),
)


def foreign(data: bytes) -> str | None:
    """Name what begins with ``data``, if it is known and no audio file."""
    for offset, magic, name in _FOREIGN:
        if data.startswith(magic, offset):
            return name
    for parts, name in _FOREIGN_BY_PARTS:
        if all(data.startswith(magic, offset) for offset, magic in parts):
            return name
    if _is_matlab_4(data):
        return "a MATLAB file"
    if data.startswith(b"\1\4") and len(data) >= 18 and _is_text(data[2:18]):
        return "an MPC sample, which libavformat does not read"
    return "text" if _is_text(data) else None


def _is_matlab_4(data: bytes) -> bool:
    """By the header of its first matrix: type, rows, columns, imaginary part, length of its name,
    in either order of bytes, and the name."""
    if len(data) < 21:
        return False
    for order in "<>":
        form, rows, columns, imaginary, length = struct.unpack_from(f"{order}5I", data)
        name = data[20 : 20 + length]
        if (
            form % 1000 in range(0, 60, 10)
            and form < 5_000
            and 0 < rows * columns < 1 << 32
            and imaginary in (0, 1)
            and 2 <= length <= 64
            and name[:-1].isalnum()
            and name[-1:] == b"\0"
        ):
            return True
    return False


def _is_text(data: bytes) -> bool:
    if data.startswith(_UTF_MARKS) and (_is_utf(data, "utf-16") or _is_utf(data, "utf-32")):
        return True
    if len(data) >= _TEXT_CODE_BYTES_MIN and any(
        _is_utf(data[:_TEXT_JUDGED_BYTES], code) for code in _UTF_16_CODES
    ):
        return True
    if len(data) < _TEXT_BYTES_MIN or not _CONTROLS.isdisjoint(data):
        return False
    if len(data) >= _TEXT_CODE_BYTES_MIN:
        # The high bytes of quiet samples beside zero are all alike.
        few_values = min(len(set(data[::2])), len(set(data[1::2]))) < _TEXT_VALUES_MIN
        return data.isascii() or not (few_values or _is_mu_law(data))
    try:
        data.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut off.
        return error.reason == "unexpected end of data"
    return True


def _is_mu_law(data: bytes) -> bool:
    """Whether ``data`` has quiet samples of both signs, and hardly anything between words."""

    def share(values: bytes) -> float:
        return 1 - len(data.translate(None, values)) / len(data)

    return share(_SPACES) < _WORD_ENDS_SHARE_MIN and all(
        share(values) >= _QUIET_MU_LAW_SHARE_MIN for values in _QUIET_MU_LAW
    )


def _is_utf(data: bytes, code: str) -> bool:
    try:
        # The last character may be cut off.
        text = codecs.getincrementaldecoder(code)().decode(data)
    except UnicodeError:
        return False
    text = text.replace("\ufeff", "")  # Marks of texts that were joined.
    # Samples of a microphone with an offset are letters, too: rare ones, or none that ends a word.
    return (
        len(text) >= _TEXT_BYTES_MIN
        and len(set(text)) >= min(_TEXT_VALUES_MIN, len(text) // 2)
        and all(letter.isprintable() or letter in "\t\n\r\f" for letter in text)
        and len(_USUAL_LETTERS.findall(text)) >= _USUAL_LETTERS_SHARE_MIN * len(text)
        and sum(map(text.count, _WORD_ENDS)) >= _WORD_ENDS_SHARE_MIN * len(text)
    )
