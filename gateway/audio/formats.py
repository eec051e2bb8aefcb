"""The list of audio containers, and how the first bytes of a file determine its container.

What the decoder accepts, error messages, the REST description and the web page follow from
``FORMATS``. A new container is a line there, a name in ``Container``, and its name in
docs/protocol.md. MP3 without tags, AAC, AC-3 and MPEG-TS have no signature: ``sniff`` knows them by
their frames.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Final, Literal

from gateway.audio.frames import aac_frame, ac3_frame, flac_frame, loas_frame, mp3_frame, ts_packet

Container = Literal[
    "wav", "matroska", "ogg", "flac", "mp3", "mov", "aac", "amr", "aiff", "caf", "asf", "au",
    "avi", "flv", "wv", "ape", "tta", "w64", "rm", "voc", "nistsphere", "iff", "ircam", "epaf",
    "pvf", "sox", "avr", "gxf", "wtv", "dts", "mlp", "truehd", "nut", "mpeg", "mxf", "ast",
    "smjpeg", "ac3", "loas", "mpegts",
]  # fmt: skip
"""The name of a demuxer of libavformat."""
Signature = tuple[tuple[int, bytes], ...]
"""(offset, bytes) pairs, all of which are found in the file."""

RAW_SAMPLE_RATE_HZ_MIN: Final = 8_000
RAW_SAMPLE_RATE_HZ_MAX: Final = 48_000
"""Sample rates of raw PCM. Containers carry their own."""


@dataclass(frozen=True, slots=True)
class Format:
    container: Container
    title: str
    """The name that users know."""
    suffixes: tuple[str, ...]
    signatures: tuple[Signature, ...] = ()
    """Empty: it is known by its frames."""
    _: KW_ONLY
    block_bytes: int = 128
    """Bytes that the decoder passes to libavformat at a time. Blocks are aligned in the stream, so
    the PCM does not depend on where a client cut its chunks."""
    probe_bytes: int = 2_048
    """Bytes in which libavformat looks for the codecs. More delay a live stream."""
    needs_all: bool = False
    """The decoder keeps the file until its end, where its index may be."""
    repeats: bool = False
    """Every frame or block of a stream looks like a beginning."""
    rare: bool = False
    """Messages do not name it."""


_rare: Final = partial(Format, block_bytes=2_048, probe_bytes=1 << 16, rare=True)


def _at_start(*values: bytes) -> tuple[Signature, ...]:
    """Each of these is a signature."""
    return tuple(((0, value),) for value in values)


_IRCAM: Final = [
    magic
    for machine in b"\1\2\3\4"
    for magic in (bytes([100, 163, machine, 0]), bytes([0, machine, 163, 100]))
]
"""By the machine that wrote it, little- and big-endian."""
_DTS: Final = [bytes.fromhex(sync) for sync in ("7ffe8001", "fe7f0180", "1fffe800", "ff1f00e8")]
"""Words of 16 and of 14 bits, in either order of bytes."""
FORMATS: Final = (
    Format(
        "wav",
        "WAV",
        (".wav",),
        tuple(((0, name), (8, b"WAVE")) for name in (b"RIFF", b"RF64", b"BW64", b"RIFX")),
    ),
    # WebM is a kind of Matroska.
    Format("matroska", "WebM", (".webm", ".mkv", ".mka"), _at_start(b"\x1a\x45\xdf\xa3")),
    # Every page of a stream begins with OggS; only its first page has these flags (RFC 3533).
    Format("ogg", "Ogg", (".ogg", ".opus", ".oga", ".spx"), (((0, b"OggS"), (4, b"\x00\x02")),)),
    Format("flac", "FLAC", (".flac",), _at_start(b"fLaC")),
    Format(
        "mp3",
        "MP3",
        (".mp3",),
        # Files without a tag are known by their frames.
        _at_start(*(b"ID3" + bytes([version, 0]) for version in (2, 3, 4))),
        # libavformat's demuxer loses the first frame if its header is split between two reads, so
        # a block is longer than a frame.
        block_bytes=2_048,
        repeats=True,
    ),
    Format(
        "mov",
        "MP4",
        (".m4a", ".mp4", ".mov", ".3gp", ".m4b", ".m4v"),
        (
            *(((4, name),) for name in (b"ftyp", b"moov", b"mdat")),
            # Words that a text may have there, after a length that it cannot have.
            *(((4, name), (0, b"\0")) for name in (b"wide", b"skip", b"free")),
        ),
    ),
    Format("aac", "AAC", (".aac",), block_bytes=2_048, repeats=True),
    Format("amr", "AMR", (".amr", ".awb"), _at_start(b"#!AMR\n", b"#!AMR-WB\n")),
    Format(
        "aiff",
        "AIFF",
        (".aiff", ".aif", ".aifc"),
        tuple(((0, b"FORM"), (8, kind)) for kind in (b"AIFF", b"AIFC")),
    ),
    Format("caf", "CAF", (".caf",), _at_start(b"caff\0\1"), needs_all=True),
    Format(
        "asf",
        "WMA",
        (".wma", ".asf", ".wmv"),
        _at_start(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")),
        block_bytes=2_048,
    ),
    Format("au", "AU", (".au", ".snd"), _at_start(b".snd")),
    Format("avi", "AVI", (".avi",), (((0, b"RIFF"), (8, b"AVI ")),), probe_bytes=1 << 18),
    Format("flv", "FLV", (".flv",), _at_start(b"FLV\1"), probe_bytes=1 << 16),
    Format("wv", "WavPack", (".wv",), _at_start(b"wvpk"), repeats=True),
    Format("ape", "APE", (".ape",), (((0, b"MAC "), (5, b"\x0f")),), block_bytes=2_048),
    Format("tta", "TTA", (".tta",), _at_start(b"TTA1")),
    Format("w64", "W64", (".w64",), _at_start(bytes.fromhex("726966662e91cf11a5d628db04c10000"))),
    Format("rm", "RealMedia", (".rm", ".ra"), _at_start(b".RMF", b".ra\xfd"), probe_bytes=1 << 16),
    Format("voc", "VOC", (".voc",), _at_start(b"Creative Voice File\x1a")),
    Format("nistsphere", "NIST SPHERE", (".sph",), _at_start(b"NIST_1A\n")),
    # Otherwise IFF files with PCM would be taken for raw PCM, at a wrong rate.
    _rare(
        "iff",
        "IFF",
        (".8svx",),
        tuple(((0, b"FORM"), (8, kind)) for kind in (b"8SVX", b"MAUD")),
        needs_all=True,
    ),
    _rare("ircam", "IRCAM", (".sf",), _at_start(*_IRCAM)),
    _rare("epaf", "PAF", (".paf",), _at_start(b" paf", b"fap ")),
    _rare("pvf", "PVF", (".pvf",), _at_start(b"PVF1\n")),
    _rare("sox", "SoX", (".sox",), _at_start(b".SoX", b"XoS.")),
    _rare("avr", "AVR", (".avr",), _at_start(b"2BIT")),
    _rare("gxf", "GXF", (".gxf",), (((4, b"\1\xbc\0\0"), (0, bytes(4))),), probe_bytes=1 << 18),
    _rare(
        "wtv",
        "WTV",
        (".wtv",),
        _at_start(bytes.fromhex("b7d800203749da11a64e0007e95ead8d")),
        needs_all=True,
    ),
    _rare("dts", "DTS", (".dts",), _at_start(*_DTS), repeats=True),
    _rare("mlp", "MLP", (".mlp",), (((4, b"\xf8\x72\x6f\xbb"),),), repeats=True),
    _rare("truehd", "TrueHD", (".thd",), (((4, b"\xf8\x72\x6f\xba"),),), repeats=True),
    _rare("nut", "NUT", (".nut",), _at_start(b"nut/multimedia container\0")),
    _rare("mpeg", "MPEG", (".mpg",), _at_start(b"\0\0\1\xba"), probe_bytes=1 << 18, repeats=True),
    # Further partitions of a file differ in the last of these bytes.
    _rare("mxf", "MXF", (".mxf",), _at_start(bytes.fromhex("060e2b34020501010d0102010102"))),
    _rare("ast", "AST", (".ast",), (((0, b"STRM"), (8, b"\0\1\0\x10")),)),
    _rare("smjpeg", "SMJPEG", (".mjpg",), _at_start(b"\0\x0aSMJPEG")),
    _rare("ac3", "AC-3", (".ac3",), repeats=True),
    _rare("loas", "LATM", (".latm",), repeats=True),
    _rare("mpegts", "MPEG-TS", (".ts",), probe_bytes=1 << 18, repeats=True),
)
TITLED: Final = [known.title for known in FORMATS if not known.rare]
TITLES: Final = " or ".join([", ".join(TITLED[:-1]), TITLED[-1]])
"""The list in words: "WAV, WebM, … or NIST SPHERE"."""
BY_CONTAINER: Final[dict[str, Format]] = {known.container: known for known in FORMATS}
Candidate = tuple[Container, Signature]
_CANDIDATES: Final[list[Candidate]] = [
    (known.container, signature) for known in FORMATS for signature in known.signatures
]


def _by_first(offset: int, count: int) -> dict[bytes, list[Candidate]]:
    """The candidates whose first pair is at ``offset``, by its first ``count`` bytes."""
    found: dict[bytes, list[Candidate]] = {}
    for container, signature in _CANDIDATES:
        if signature[0][0] == offset:
            found.setdefault(signature[0][1][:count], []).append((container, signature))
    return found


# ``sniff`` is called for every chunk, and nearly all are raw PCM.
_BY_FIRST_BYTE: Final = _by_first(0, 1)
_BY_BOX: Final = _by_first(4, 4)
"""A container that begins with its first box's length has the box's name there."""


class AudioError(Exception):
    """Audio of a client cannot be used.

    ``code`` is stable for programs: ``bad_audio``, ``audio_too_long``, ``overloaded``. ``pcm`` is
    the valid audio of the failing chunk before the fault; the caller uses it. ``was_noise``: the
    audio before it was wrong as well, as far as it is not recognised yet.
    """

    def __init__(
        self, code: str, message: str, pcm: bytes = b"", *, was_noise: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.pcm = pcm
        self.was_noise = was_noise


class PcmSoFar(bytearray):
    """PCM that a ``with`` block collects, and that an ``AudioError`` in the block takes along."""

    def __enter__(self) -> PcmSoFar:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, AudioError):
            error.pcm = bytes(self) + error.pcm


def sniff(data: bytes) -> Container | Literal["undecided"] | None:
    """Return the container that begins with ``data``; None if it is none of ``FORMATS``.

    ``undecided``: ``data`` is too short, and more bytes may make it the beginning of a container.
    ``SNIFF_BYTES_MAX`` bytes are enough in any case.
    """
    candidates = _CANDIDATES
    if len(data) >= 8:
        candidates = [*_BY_FIRST_BYTE.get(data[:1], ()), *_BY_BOX.get(data[4:8], ())]
    undecided = False
    for container, signature in candidates:
        if all(
            data[offset : offset + len(value)] == value[: max(0, len(data) - offset)]
            for offset, value in signature
        ):
            if len(data) >= max(offset + len(value) for offset, value in signature):
                return container
            undecided = True
    for container, parse, needed in FRAMED.get(data[:1], ()):
        verdict = _sniff_frames(data, parse, needed)
        if verdict == "yes":
            return container
        undecided = undecided or verdict == "undecided"
    return "undecided" if undecided and data else None


def has_signature(container: Container, data: bytes) -> bool:
    """Whether ``sniff`` finds ``container`` by its signature, and not by frames."""
    return any(
        all(data.startswith(value, offset) for offset, value in signature)
        for signature in BY_CONTAINER[container].signatures
    )


def repeats(container: Container, data: bytes) -> bool:
    """Whether ``data``, in which ``sniff`` finds ``container``, may continue such a stream."""
    if container == "mov":
        return data[4:8] != b"ftyp"
    if container == "wv" and len(data) >= 28:  # Its first block: the first of sample 0.
        return any(data[16:20]) or not data[25] & 8
    return BY_CONTAINER[container].repeats and not data.startswith(b"ID3")


# ------------------------------------------------------------------------------------------ frames

FRAMES_NEEDED: Final = 3
"""Raw PCM looks like one frame header by chance; like three at the right distances in one of 2**40
chunks."""
_TS_PACKETS_NEEDED: Final = 5
"""Their headers have fewer bits that are fixed."""
FRAME_HEADER_BYTES: Final = 7
"""Length of AAC's frame headers, the longest."""
FRAME_BYTES_MAX: Final = 8_194
"""Longest frame, of LOAS."""
SNIFF_BYTES_MAX: Final = FRAMES_NEEDED * FRAME_BYTES_MAX
"""``sniff`` decides about this many bytes in any case."""
FrameParser = Callable[[bytes], tuple[object, int] | None]
FRAMED: Final[dict[bytes, tuple[tuple[Container, FrameParser, int], ...]]] = {
    b"\xff": (("mp3", mp3_frame, FRAMES_NEEDED), ("aac", aac_frame, FRAMES_NEEDED)),
    b"\x0b": (("ac3", ac3_frame, FRAMES_NEEDED),),
    b"\x56": (("loas", loas_frame, FRAMES_NEEDED),),
    b"\x47": (("mpegts", ts_packet, _TS_PACKETS_NEEDED),),
}
"""By the first byte of their frames."""
_FRAME_FIRST_BYTE: Final = re.compile(rb"[\xff\x0b\x56\x47]")


def _sniff_frames(
    data: bytes, parse: FrameParser, needed: int
) -> Literal["yes", "no", "undecided"]:
    if len(data) >= 8 and data[2:8] == data[:6]:  # A constant.
        return "no"
    offset = 0
    shared = None
    for _ in range(needed):
        header = data[offset : offset + FRAME_HEADER_BYTES]
        if len(header) < FRAME_HEADER_BYTES:
            # All beginnings of a header are plausible.
            return "undecided" if header[:1] in (b"", data[:1]) else "no"
        frame = parse(header)
        if frame is None or shared not in (None, frame[0]):
            return "no"
        shared = frame[0]
        offset += frame[1]
    return "yes"


def find_frames(data: bytes) -> tuple[Container, int] | None:
    """Find where a stream of frames begins in ``data``, which begins within a frame: a live stream
    that is joined late. Returns its container and offset."""
    for found in _FRAME_FIRST_BYTE.finditer(data, 0, SNIFF_BYTES_MAX):
        offset = found.start()
        stream = data[offset : offset + SNIFF_BYTES_MAX]
        for container, parse, needed in FRAMED[found.group()]:
            if _sniff_frames(stream, parse, needed) == "yes":
                return container, offset
        if flac_frame(stream):
            return "flac", offset
    return None
