"""Which container a chunk of audio begins, by its magic, and where a stream ends by itself."""

from __future__ import annotations

from typing import Final, Literal

Container = Literal["wav", "matroska", "ogg", "flac", "mp3"]
"""Named as in libavformat; WebM is a kind of Matroska."""

SNIFF_BYTES_MAX: Final = 4_400
"""``sniff`` is never undecided about more than this: three MP3 frames and a header."""


class AudioError(Exception):
    """Audio that a client sent cannot be used.

    ``code`` is stable for programs: ``bad_audio``, ``audio_too_long``, ``overloaded``. ``pcm`` is
    what the failing chunk gave before the fault: sound, and to be used.
    """

    def __init__(self, code: str, message: str, pcm: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.pcm = pcm


def sniff(data: bytes) -> Container | Literal["undecided"] | None:
    """The container whose beginning ``data`` is; None when it begins none that we know.

    ``undecided``: ``data`` is too short to tell, and more may make it a container's beginning.
    """
    for name, magic, offset, mark in _MAGICS:
        if (
            data[: len(magic)] == magic[: len(data)]
            and data[offset : offset + len(mark)] == (mark[: max(0, len(data) - offset)])
        ):
            if len(data) >= max(len(magic), offset + len(mark)):
                return name
            return "undecided"
    return _sniff_mp3_frames(data)


_MAGICS: Final[tuple[tuple[Container, bytes, int, bytes], ...]] = (
    # container, magic at 0, and another mark at an offset
    ("wav", b"RIFF", 8, b"WAVE"),
    ("matroska", b"\x1a\x45\xdf\xa3", 0, b""),
    # Every page of an Ogg stream begins so, but only a first one has these flags (RFC 3533).
    ("ogg", b"OggS", 4, b"\x00\x02"),
    ("flac", b"fLaC", 0, b""),
    ("mp3", b"ID3", 0, b""),
)

# ------------------------------------------------------------------------------------- MP3 frames

_MP3_FRAMES_NEEDED: Final = 3
"""Raw PCM may look like one frame header by chance; like three at the right distances, once in
2**45 chunks."""
_BITRATES_KBPS: Final = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ: Final = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}


def is_mp3_frame(header: bytes) -> bool:
    """Whether ``header`` begins with the header of an MPEG layer III frame."""
    return _mp3_frame(header) is not None


def _mp3_frame(header: bytes) -> tuple[tuple[int, int], int] | None:
    """(what all frames of a stream share, length in bytes) of the frame with this header."""
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
    place = 0
    shared = None
    for _ in range(_MP3_FRAMES_NEEDED):
        header = data[place : place + 4]
        if len(header) < 4:
            plausible = not header or header[0] == 0xFF
            return "undecided" if plausible and (data or place) else None
        frame = _mp3_frame(header)
        if frame is None or shared not in (None, frame[0]):
            return None
        shared = frame[0]
        place += frame[1]
    return "mp3"


# ----------------------------------------------------------------------- ends that a stream tells


class OggPages:
    """Follows the pages of an Ogg stream to its last (RFC 3533), without looking into them."""

    _HEADER_BYTES: Final = 27
    _FIRST, _LAST = 2, 4

    def __init__(self) -> None:
        self._header = bytearray()
        self._skip_bytes = 0
        self._open_streams = 0
        self._lost = False

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; returns whether the stream ends exactly with them."""
        place = 0
        while place < len(data) and not self._lost:
            skipped = min(self._skip_bytes, len(data) - place)
            self._skip_bytes -= skipped
            place += skipped
            if self._skip_bytes or place == len(data):
                break
            wanted = self._HEADER_BYTES
            if len(self._header) >= wanted:
                wanted += self._header[26]
            taken = data[place : place + wanted - len(self._header)]
            self._header += taken
            place += len(taken)
            self._page()
        return not (self._lost or self._header or self._skip_bytes or self._open_streams)

    def _page(self) -> None:
        """Take note of the page when its header is complete."""
        if len(self._header) < self._HEADER_BYTES:
            return
        if self._header[:4] != b"OggS":
            self._lost = True  # the decoder will say what is wrong
            return
        if len(self._header) < self._HEADER_BYTES + self._header[26]:
            return
        flags = self._header[5]
        self._open_streams += bool(flags & self._FIRST) - bool(flags & self._LAST)
        self._skip_bytes = sum(self._header[self._HEADER_BYTES :])
        self._header.clear()
