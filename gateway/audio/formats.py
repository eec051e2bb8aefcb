"""The list of audio containers, and how the first bytes of a file determine its container.

What the decoder accepts, error messages, the REST description and the web page follow from
``FORMATS``. A new container is a line there, a name in ``Container``, and its name in
docs/protocol.md and docs/dialects.md. MP3 without tags has no signature: ``sniff`` and
static/audio-files.js recognise it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Container = Literal["wav", "matroska", "ogg", "flac", "mp3"]
"""The name of a demuxer of libavformat."""
Signature = tuple[tuple[int, bytes], ...]
"""(offset, bytes) pairs, all of which are found in the file."""

RAW_SAMPLE_RATE_HZ_MIN: Final = 8_000
RAW_SAMPLE_RATE_HZ_MAX: Final = 48_000
"""Sample rates of raw PCM. Containers carry their own."""
SNIFF_BYTES_MAX: Final = 4_400
"""``sniff`` decides about this many bytes in any case: three MP3 frames and a header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    container: Container
    title: str
    """The name that users know."""
    suffixes: tuple[str, ...]
    signatures: tuple[Signature, ...]
    block_bytes: int = 128
    """Bytes that the decoder passes to libavformat at a time. Blocks are aligned in the stream, so
    the PCM does not depend on where a client cut its chunks."""


FORMATS: Final = (
    Format(
        container="wav",
        title="WAV",
        suffixes=(".wav",),
        signatures=(((0, b"RIFF"), (8, b"WAVE")),),
    ),
    Format(
        container="matroska",
        title="WebM",  # A kind of Matroska.
        suffixes=(".webm",),
        signatures=(((0, b"\x1a\x45\xdf\xa3"),),),
    ),
    Format(
        container="ogg",
        title="Ogg",
        suffixes=(".ogg", ".opus"),
        # Every page of a stream begins with OggS; only its first page has these flags (RFC 3533).
        signatures=(((0, b"OggS"), (4, b"\x00\x02")),),
    ),
    Format(container="flac", title="FLAC", suffixes=(".flac",), signatures=(((0, b"fLaC"),),)),
    Format(
        container="mp3",
        title="MP3",
        suffixes=(".mp3",),
        signatures=(((0, b"ID3"),),),  # Files without a tag are known by their frames.
        # libavformat's demuxer loses the first frame if its header is split between two reads, so
        # a block is longer than a frame.
        block_bytes=2_048,
    ),
)
TITLES: Final = " or ".join([", ".join(known.title for known in FORMATS[:-1]), FORMATS[-1].title])
"""The list in words: "WAV, WebM, Ogg, FLAC or MP3"."""
_FIRST_BYTES: Final = frozenset(
    [b"\xff", *(value[:1] for known in FORMATS for ((_, value), *_) in known.signatures)]
)
"""The first bytes of all containers; 0xFF: of an MP3 frame. ``sniff`` is called for every chunk,
and nearly all are raw PCM."""
BLOCK_BYTES: Final = {known.container: known.block_bytes for known in FORMATS}


class AudioError(Exception):
    """Audio of a client cannot be used.

    ``code`` is stable for programs: ``bad_audio``, ``audio_too_long``, ``overloaded``. ``pcm`` is
    the valid audio of the failing chunk before the fault; the caller uses it.
    """

    def __init__(self, code: str, message: str, pcm: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.pcm = pcm


def sniff(data: bytes) -> Container | Literal["undecided"] | None:
    """Return the container that begins with ``data``; None if it is none of ``FORMATS``.

    ``undecided``: ``data`` is too short, and more bytes may make it the beginning of a container.
    """
    if data and data[:1] not in _FIRST_BYTES:
        return None
    for known in FORMATS:
        for signature in known.signatures:
            if all(
                data[offset : offset + len(value)] == value[: max(0, len(data) - offset)]
                for offset, value in signature
            ):
                length = max(offset + len(value) for offset, value in signature)
                return known.container if len(data) >= length else "undecided"
    return _sniff_mp3_frames(data)


# ------------------------------------------------------------------------------------- MP3 frames

_MP3_FRAMES_NEEDED: Final = 3
"""Raw PCM looks like one frame header by chance; like three at the right distances in one of 2**45
chunks."""
_BITRATES_KBPS: Final = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ: Final = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}


def _mp3_frame(header: bytes) -> tuple[tuple[int, int], int] | None:
    """Return ((version, rate), length in bytes) of the MPEG audio layer III frame that begins with
    ``header``, or None if it is no frame header.

    All frames of a stream have the same version and rate.
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version = header[1] >> 3 & 3
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3 or header[3] & 3 == 2:
        return None
    rate_hz = _RATES_HZ[version][rate]
    bitrate_bps = _BITRATES_KBPS[1 if version == 3 else 2][bitrate - 1] * 1000
    samples = 1152 if version == 3 else 576
    length = samples // 8 * bitrate_bps // rate_hz + (header[2] >> 1 & 1)
    return (version, rate), length


def _sniff_mp3_frames(data: bytes) -> Literal["mp3", "undecided"] | None:
    offset = 0
    shared = None
    for _ in range(_MP3_FRAMES_NEEDED):
        header = data[offset : offset + 4]
        if len(header) < 4:
            plausible = not header or header[0] == 0xFF
            return "undecided" if plausible and (data or offset) else None
        frame = _mp3_frame(header)
        if frame is None or shared not in (None, frame[0]):
            return None
        shared = frame[0]
        offset += frame[1]
    return "mp3"


# ------------------------------------------------------------------------------------ ends of Ogg


class OggPages:
    """Finds the last page of an Ogg stream (RFC 3533). It does not read what pages contain."""

    _HEADER_BYTES: Final = 27
    _FIRST, _LAST = 2, 4

    def __init__(self) -> None:
        self._header = bytearray()
        self._skip_bytes = 0
        self._open_streams = 0
        self._lost = False

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; return whether the stream ends exactly after them."""
        offset = 0
        while offset < len(data) and not self._lost:
            skipped = min(self._skip_bytes, len(data) - offset)
            self._skip_bytes -= skipped
            offset += skipped
            if self._skip_bytes or offset == len(data):
                break
            wanted = self._HEADER_BYTES
            if len(self._header) >= wanted:
                wanted += self._header[26]
            taken = data[offset : offset + wanted - len(self._header)]
            self._header += taken
            offset += len(taken)
            self._page()
        return not (self._lost or self._header or self._skip_bytes or self._open_streams)

    def _page(self) -> None:
        """Process the page header once it is complete."""
        if len(self._header) < self._HEADER_BYTES:
            return
        if self._header[:4] != b"OggS":
            self._lost = True  # The decoder will report the fault.
            return
        if len(self._header) < self._HEADER_BYTES + self._header[26]:
            return
        flags = self._header[5]
        self._open_streams += bool(flags & self._FIRST) - bool(flags & self._LAST)
        self._skip_bytes = sum(self._header[self._HEADER_BYTES :])
        self._header.clear()
