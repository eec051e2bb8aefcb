"""Core: PCM of any form, and an incremental reader of RIFF/WAVE files (Microsoft, "Multimedia
Programming Interface and Data Specifications 1.0", and "Multiple Channel Audio Data and WAVE
Files"; EBU Tech 3306: RF64).

No library is used, because clients stream WAV files whose headers are split between chunks and
have wrong lengths, and because no number in a header can be trusted. Files with a codec other than
PCM, floats, A-law and µ-law are left to libavformat.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from gateway.audio import g711, raw_pcm
from gateway.audio.downmix import Downmix, notice, to_s16
from gateway.audio.file_ends import NextFile
from gateway.audio.foreign_files import foreign
from gateway.audio.formats import AudioError, sniff
from gateway.audio.truncation import missing

SAMPLE_RATE_HZ_MIN: Final = 4_000
SAMPLE_RATE_HZ_MAX: Final = 192_000
CHANNELS_MAX: Final = 64
FORMAT_BYTES_MAX: Final = 4_096
"""Size limit of the ``fmt`` chunk."""
HEADER_BYTES_MAX: Final = 64 << 20
"""Bytes before the audio data, such as pictures; beyond it ``bad_audio``."""
UNNAMED_CHUNK_BYTES_MAX: Final = 1 << 20
"""Length up to which any chunk after the audio data is believed. Longer ones have a known name."""
LENGTHS_UNKNOWN: Final = frozenset({0, 0xFFFFFFFF})
"""Lengths that recorders write before they know the length: the data extends to the end."""

_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_LAWS: Final[dict[int, g711.Law]] = {_A_LAW: "alaw", _MU_LAW: "ulaw"}
_ENCODINGS: Final = {
    **{(_PCM, bits): f"linear{bits}" for bits in (8, 16, 24, 32)},
    **{(_FLOAT, bits): f"float{bits}" for bits in (32, 64)},
    (_A_LAW, 8): "alaw",
    (_MU_LAW, 8): "mulaw",
}
"""Names of the codings that are read here, by format and bits."""
_BY_ENCODING: Final = {name: coding for coding, name in _ENCODINGS.items()}
_MISREAD_CODECS: Final = {0x38: "NMS ADPCM", 0x40: "G.721 ADPCM"}
"""libavcodec takes the first for AMR, and the bits of the second in the wrong order."""
_BIG_ENDIAN_NAME: Final = b"RIFX"
_RIFF_NAMES: Final = frozenset({b"RIFF", b"RF64", b"BW64", _BIG_ENDIAN_NAME})
_LONG_CHUNKS: Final = frozenset(
    b"LIST,id3 ,ID3 ,JUNK,junk,PAD ,FLLR,bext,iXML,axml,_PMX".split(b",")
)
Floats = npt.NDArray[np.float32]
ByteOrder = Literal["little", "big"]
_GUID_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")


class OtherCodecError(Exception):
    """The file is valid so far, but only libavformat knows its codec. ``data`` is a file that
    begins with the same format, and the bytes that follow."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data


@dataclass(frozen=True, slots=True, kw_only=True)
class WavFormat:
    """The validated content of a ``fmt`` chunk."""

    coding: int
    channels: int
    sample_rate_hz: int
    bits: int
    order: ByteOrder = "little"

    @property
    def is_wanted(self) -> bool:
        """Whether the samples are s16le mono."""
        form = (self.coding, self.bits, self.channels, self.order)
        return form == (_PCM, 16, 1, "little")

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8

    @property
    def encoding(self) -> str:
        """As in ``DeclaredAudio``."""
        return _ENCODINGS[self.coding, self.bits]


class DeclaredAudio(Struct, frozen=True, kw_only=True):
    """The form of raw audio that a client declares; None: not declared."""

    sample_rate_hz: int | None = None
    channels: int | None = None
    encoding: str | None = None
    """Such as linear16, or mulaw."""

    def raw(self, sample_rate_hz: int) -> WavFormat:
        """Return the form of raw audio at this rate: 16-bit PCM unless another is declared."""
        coding, bits = _BY_ENCODING[self.encoding or "linear16"]
        return WavFormat(
            coding=coding, channels=self.channels or 1, sample_rate_hz=sample_rate_hz, bits=bits
        )

    def contradiction(self, form: WavFormat) -> str:
        """Return a message if ``form``, which is used, differs."""
        differences = [
            f"{name} {used}, not {declared}"
            for name, declared, used in (
                ("sample rate", self.sample_rate_hz, form.sample_rate_hz),
                ("channels", self.channels, form.channels),
                ("encoding", self.encoding, form.encoding),
            )
            if declared not in (None, used)
        ]
        return f"the WAV header is used: {'; '.join(differences)}" if differences else ""


class WavPcm(NamedTuple):
    """Mono s16le PCM of one file, at its rate."""

    format: WavFormat
    pcm: bytes


class MonoPcm:
    """Samples of one form, in pieces of any size, as mono s16le PCM at their rate."""

    def __init__(self, form: WavFormat) -> None:
        self.format = form
        self.held = b""
        """An incomplete frame of channels."""
        self._downmix = Downmix(form.channels, form.sample_rate_hz) if form.channels > 1 else None

    @property
    def notice(self) -> str:
        """Which channel was used, if it is not the mean of all."""
        if self._downmix is None:
            return ""
        return notice("channel", self.format.channels, self._downmix.blocks)

    def convert(self, data: bytes) -> bytes:
        """Return the samples that are complete. Of several channels a part is held back."""
        data = self.held + data
        whole = len(data) - len(data) % self.format.frame_bytes
        data, self.held = data[:whole], data[whole:]
        if self.format.is_wanted:
            return data
        samples = to_s16_scale(data, self.format)
        if self._downmix is not None:
            samples = self._downmix.feed(samples.reshape(-1, self.format.channels))
        return to_s16(samples).tobytes()

    def flush(self) -> bytes:
        """Return the samples that were held back."""
        return b"" if self._downmix is None else to_s16(self._downmix.flush()).tobytes()


class WavReader:
    """Converts the bytes of WAV files, one behind the other, to mono s16le PCM at their rates."""

    def __init__(self) -> None:
        self.format: WavFormat | None = None
        """Of the current file; None until its ``fmt`` chunk is read."""
        self._pcm: MonoPcm | None = None
        self._earlier_notice = ""
        self._buffer = bytearray()
        self._out = bytearray()
        """PCM of the current file that is not in a piece yet."""
        self._pieces: list[WavPcm] = []
        self._order: ByteOrder = "little"
        self._part: Literal["header", "audio", "trailer"] = "header"
        """The part of the file that is read; the trailer is whatever follows the audio."""
        self._steps = self._read()
        self._skip_bytes = 0
        self._long_data_bytes: int | None = None
        """Length of the audio data according to the ``ds64`` chunk of RF64."""
        self._data_bytes = 0
        """Declared length of the audio data."""
        self._data_bytes_left: int | None = None
        """None: the data extends to the end."""
        self._pad_bytes = 0
        """RIFF chunks of odd length are followed by one byte."""
        self._next = NextFile(None)
        self._header_bytes = 0
        self._is_later = False
        """Whether the current file follows another one."""
        self.rest = b""
        """The first bytes of a file that this reader cannot read, found behind another one."""
        self.fault: AudioError | None = None
        """The error of bytes behind the audio that are no audio."""

    @property
    def complete(self) -> bool:
        """Whether the file ends here by its declared lengths."""
        at_end = self._part == "trailer"
        return at_end and len(self._buffer) <= self._pad_bytes and not self._skip_bytes

    def feed(self, data: bytes) -> list[WavPcm]:
        """Take the next bytes and return their PCM, that of each file on its own.

        Data after the declared length is skipped if it looks like RIFF chunks, and is the next file
        if it looks like one. Otherwise it is audio if it can be, because recorders often declare
        the length of the first part; a file of another container is the ``rest``.

        Raises:
            AudioError: ``bad_audio``.
            OtherCodecError: before any PCM.
        """
        self._buffer += data
        next(self._steps)
        self._end_piece()
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> bytes:
        """The file ends here. Returns its last PCM. An incomplete sample or chunk is dropped.

        Raises:
            AudioError: ``bad_audio``, because the header is incomplete.
        """
        if self._part == "header":
            raise _bad("the WAV header is incomplete")
        is_beyond = self._part == "trailer" and not self._skip_bytes
        if is_beyond and len(self._buffer) >= 12 and self._read_beyond():
            self._convert_buffer()
        if self._pcm is not None:
            own, rest = self._next.finish()
            self.rest = self.rest or rest
            self._out += self._pcm.convert(own) + self._pcm.flush()
        pcm, self._out = bytes(self._out), bytearray()
        return pcm

    @property
    def notice(self) -> str:
        """Which channel was used, if it is not the mean of all; of the last file that has any."""
        return (self._pcm.notice if self._pcm is not None else "") or self._earlier_notice

    @property
    def missing(self) -> str:
        """A message if the data is shorter than declared, once the file has ended."""
        if self.format is None or not self._data_bytes_left:
            return ""
        bytes_per_s = self.format.frame_bytes * self.format.sample_rate_hz
        came = self._data_bytes - self._data_bytes_left
        return missing(self._data_bytes / bytes_per_s, bytes_per_s, came / bytes_per_s)

    def _end_piece(self) -> None:
        if self._pcm is None:
            return
        if self._part == "trailer":
            self._out += self._pcm.flush()
        if self._out:
            self._pieces.append(WavPcm(self._pcm.format, bytes(self._out)))
        self._out.clear()

    # ---------------------------------------------------- the parts; they yield to get more bytes

    def _read(self) -> Iterator[None]:
        while True:
            match self._part:
                case "header":
                    yield from self._read_header()
                case "audio":
                    yield from self._read_audio()
                case "trailer":
                    yield from self._read_trailer()

    def _take(self, count: int) -> Generator[None, None, bytes]:
        """Return the next ``count`` bytes of the header."""
        while len(self._buffer) < count:
            yield
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._count_header(count)
        return taken

    def _skip(self, count: int) -> Iterator[None]:
        self._skip_bytes = count
        while self._skip_bytes:
            skipped = min(self._skip_bytes, len(self._buffer))
            del self._buffer[:skipped]
            self._skip_bytes -= skipped
            if self._part == "header":
                self._count_header(skipped)
            if self._skip_bytes:
                yield

    def _count_header(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > HEADER_BYTES_MAX:
            raise _bad(
                f"the WAV file has no audio data in its first {HEADER_BYTES_MAX} bytes "
                "(HEADER_BYTES_MAX)"
            )

    def _read_header(self) -> Iterator[None]:
        head = yield from self._take(12)
        if head[:4] not in _RIFF_NAMES or head[8:] != b"WAVE":
            raise _bad("not a WAV file")
        # libavformat takes the samples of RIFX for little-endian ones.
        self._order = "big" if head[:4] == _BIG_ENDIAN_NAME else "little"
        self._earlier_notice = self.notice
        self.format = self._long_data_bytes = self._pcm = None
        self._next = NextFile(None)
        self._header_bytes = 0
        while self._part == "header":
            head = yield from self._take(8)
            name, length = head[:4], int.from_bytes(head[4:], self._order)
            if name == b"data":
                if self.format is None:
                    raise _bad("the WAV data chunk precedes the fmt chunk")
                self._begin_audio(length)
            elif name in (b"fmt ", b"ds64"):
                is_repeated = name == b"fmt " and self.format is not None
                if is_repeated or not 16 <= length <= FORMAT_BYTES_MAX:
                    message = f"the WAV {name.decode()} chunk has an invalid length, or is repeated"
                    raise _bad(message)
                self._take_chunk(name, (yield from self._take(length)))
                yield from self._skip(length & 1)
            else:
                yield from self._skip(length + (length & 1))

    def _take_chunk(self, name: bytes, body: bytes) -> None:
        if name == b"ds64":
            self._long_data_bytes = int.from_bytes(body[8:16], "little")
            return
        self.format = parse_format(body, self._order)
        if self.format is not None:
            self._pcm = MonoPcm(self.format)
            return
        form = _BIG_ENDIAN_NAME if self._order == "big" else b"RIFF"
        length = len(body).to_bytes(4, self._order)
        head = form + b"\xff\xff\xff\xffWAVEfmt " + length + body
        if not self._is_later:
            raise OtherCodecError(head + self._buffer)
        self._end_with(head + self._buffer)
        self._part = "trailer"

    def _begin_audio(self, length: int) -> None:
        if length == 0xFFFFFFFF and self._long_data_bytes is not None:
            length = self._long_data_bytes
        self._data_bytes = length
        self._data_bytes_left = None if length in LENGTHS_UNKNOWN else length
        self._pad_bytes = length & 1
        self._part = "audio"

    def _read_audio(self) -> Iterator[None]:
        while not self._convert_buffer():
            yield
        assert self._pcm is not None
        self._pcm.held = b""  # The declared length may end within a sample.
        self._part = "trailer"

    def _convert_buffer(self) -> bool:
        """Convert the audio in the buffer. Returns whether it ends there."""
        assert self._pcm is not None
        if self._data_bytes_left is None:  # Another file may be behind it.
            own, rest = self._next.feed(bytes(self._buffer))
            self._buffer[:] = rest
            self._pad_bytes = 0
            ends = bool(rest)
        else:
            own = bytes(self._buffer[: self._data_bytes_left])
            del self._buffer[: len(own)]
            self._data_bytes_left -= len(own)
            ends = not self._data_bytes_left
        self._out += self._pcm.convert(own)
        return ends

    def _read_trailer(self) -> Iterator[None]:
        """Read chunks after the audio data, up to the next file or to further audio."""
        while self._part == "trailer":
            head = bytes(self._buffer[self._pad_bytes : self._pad_bytes + 12])
            if len(head) < 12:
                # A short last chunk may be skipped without another one behind it.
                length = int.from_bytes(head[4:8], self._order)
                if len(head) >= 8 and _looks_like_chunk(head, self._order) and length <= 4:
                    yield from self._skip_chunk(length)
                else:
                    yield
                continue
            if self._pad_bytes:
                if bytes(self._buffer[:4]) not in _RIFF_NAMES:  # Some writers forget it.
                    del self._buffer[:1]
                self._pad_bytes = 0
            head = bytes(self._buffer[:12])
            length = int.from_bytes(head[4:8], self._order)
            if head[:4] in _RIFF_NAMES and head[8:] == b"WAVE":
                self._end_piece()
                self._is_later = True
                self._part = "header"
            elif sniff(head) not in (None, "undecided"):
                self._end_with(self._buffer)
            elif head[:4] == b"data" and length:  # Some programs append to a file in this way.
                del self._buffer[:8]
                self._long_data_bytes = None
                self._begin_audio(length)
            elif _looks_like_chunk(head, self._order):
                yield from self._skip_chunk(length)
            elif (
                len(self._buffer) >= self._judged_bytes
                and sniff(bytes(self._buffer)) != "undecided"
            ):
                self._read_beyond()
            else:
                yield

    def _skip_chunk(self, length: int) -> Iterator[None]:
        del self._buffer[: self._pad_bytes + 8]
        self._pad_bytes = 0
        yield from self._skip(length + (length & 1))

    @property
    def _judged_bytes(self) -> int:
        assert self.format is not None
        return int(raw_pcm.JUDGED_S * self.format.sample_rate_hz) * self.format.frame_bytes

    def _read_beyond(self) -> bool:
        """Judge data beyond the declared length. Returns whether it is audio."""
        assert self.format is not None
        data = bytes(self._buffer[: self._judged_bytes])
        if sniff(bytes(self._buffer)) not in (None, "undecided"):
            self._end_with(self._buffer)
            return False
        whole = data[: len(data) // self.format.frame_bytes * self.format.frame_bytes]
        samples = to_s16_scale(whole, self.format).reshape(-1, self.format.channels)[:, 0]
        if (name := foreign(data)) or not raw_pcm.is_plausible(to_s16(samples).tobytes()):
            self.fault = _bad(f"what follows the audio of the WAV file is {name or 'no audio'}")
            self._end_with(b"")
            return False
        self._part = "audio"
        self._data_bytes_left = None
        return True

    def _end_with(self, rest: bytes | bytearray) -> None:
        self.rest = bytes(rest)
        self._buffer.clear()


def parse_format(body: bytes, order: ByteOrder = "little") -> WavFormat | None:
    """Return the validated content of a ``fmt`` chunk; None if only a library knows its codec.

    Its block and byte rates follow from the rest, and recorders write wrong ones, so they are
    believed only where both say that 24 bits are in 32.

    Raises:
        AudioError: ``bad_audio`` for an impossible format.
    """
    layout = ">HHIIHH" if order == "big" else "<HHIIHH"
    coding, channels, rate_hz, byte_rate, block, bits = struct.unpack_from(layout, body)
    if coding == _EXTENSIBLE and len(body) >= 40 and body[26:40] == _GUID_TAIL:
        coding = int.from_bytes(body[24:26], order)
    if coding in _MISREAD_CODECS:
        raise _bad(f"the WAV file's codec is not supported ({_MISREAD_CODECS[coding]})")
    if coding in _LAWS:
        bits = 8
    elif coding == _PCM:
        bits = (bits + 7) // 8 * 8  # 20 bits, say, are in 24.
        if bits == 24 and block == 4 * channels and byte_rate == rate_hz * block:
            bits = 32
    if not 1 <= channels <= CHANNELS_MAX:
        raise _bad(f"the WAV file has {channels} channels; 1 to {CHANNELS_MAX} are supported")
    if not SAMPLE_RATE_HZ_MIN <= rate_hz <= SAMPLE_RATE_HZ_MAX:
        raise _bad(
            f"the WAV file's sample rate of {rate_hz} Hz is not supported; "
            f"{SAMPLE_RATE_HZ_MIN} to {SAMPLE_RATE_HZ_MAX} are"
        )
    if coding in (_PCM, _FLOAT) and (coding, bits) not in _ENCODINGS:
        raise _bad(f"the WAV file's codec is not supported (format {coding}, {bits} bits)")
    if (coding, bits) not in _ENCODINGS:
        return None
    return WavFormat(
        coding=coding, channels=channels, sample_rate_hz=rate_hz, bits=bits, order=order
    )


def to_s16_scale(data: bytes, wav_format: WavFormat) -> Floats:
    """Whole frames of ``wav_format`` as numbers on the scale of 16 bits."""
    scaled: Floats
    if wav_format.order == "big":
        width = wav_format.bits // 8
        data = np.frombuffer(data, np.uint8).reshape(-1, width)[:, ::-1].tobytes()
    if wav_format.coding == _FLOAT:
        # A file may contain NaN and infinities.
        floats = np.frombuffer(data, "<f4" if wav_format.bits == 32 else "<f8")
        finite = np.nan_to_num(floats, posinf=1, neginf=-1).clip(-1, 1)
        scaled = finite.astype(np.float32) * np.float32(32768)
    elif wav_format.coding in _LAWS:
        pcm = g711.to_pcm(data, _LAWS[wav_format.coding])
        scaled = np.frombuffer(pcm, "<i2").astype(np.float32)
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


def _looks_like_chunk(head: bytes, order: ByteOrder) -> bool:
    """Whether the 8 bytes after the data are the header of a RIFF chunk."""
    name, length = head[:4], int.from_bytes(head[4:8], order)
    longest = HEADER_BYTES_MAX if name in _LONG_CHUNKS else UNNAMED_CHUNK_BYTES_MAX
    return all(0x20 <= byte < 0x7F for byte in name) and length < longest


def _bad(message: str) -> AudioError:
    return AudioError("bad_audio", message)
