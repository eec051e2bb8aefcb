"""Decodes one session's audio: chunks in, one continuous stream of 16 kHz mono s16le PCM out.

A chunk that begins with a container's magic begins a new container. Any other chunk continues the
current container. If there is none, it is raw PCM if it can be (``gateway.audio.raw_pcm``), else a
stream of frames that was joined late, or a container that libavformat recognises. The PCM does not
depend on where chunks were cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, Literal, NamedTuple

import av
import numpy as np
from msgspec import structs

from gateway.audio import raw_pcm
from gateway.audio.decoder_pool import FEED_AUDIO_S_MAX, DecoderPool, EncodedStream
from gateway.audio.file_ends import NextFile, OggPages, begins_surely, find_beginning
from gateway.audio.foreign_files import foreign
from gateway.audio.formats import (
    BY_CONTAINER,
    RAW_SAMPLE_RATE_HZ_MAX,
    RAW_SAMPLE_RATE_HZ_MIN,
    SNIFF_BYTES_MAX,
    TITLES,
    AudioError,
    Container,
    PcmSoFar,
    find_frames,
    has_signature,
    repeats,
    sniff,
)
from gateway.audio.timeline import AudioDecoded, Notice
from gateway.audio.truncation import cut_within
from gateway.audio.wav import DeclaredAudio, MonoPcm, OtherCodecError, WavFormat, WavPcm, WavReader
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, Failure


class _Piece(NamedTuple):
    """How a piece relates to its chunk, see ``AudioInput.feed``."""

    whole: bool = False
    more: bool = False
    ends: bool = False


class AudioInput:
    """Feed the session's chunks in order, one at a time, and always ``close`` it.

    ``raw_sample_rate_hz`` is the sample rate of raw PCM; containers carry their own. None: raw PCM
    is ``bad_audio``. ``declared_raw``: the client says that it sends raw PCM, so that bytes without
    a magic are not judged. ``declared``: its form, as the client says, in which raw audio is
    decoded; a notice tells if a file has another one. ``duration_ms_max`` is the longest session.
    """

    def __init__(
        self,
        raw_sample_rate_hz: int | None,
        decoders: DecoderPool,
        duration_ms_max: int,
        *,
        declared_raw: bool = False,
        declared: DeclaredAudio | None = None,
    ) -> None:
        assert (
            raw_sample_rate_hz is None
            or RAW_SAMPLE_RATE_HZ_MIN <= raw_sample_rate_hz <= RAW_SAMPLE_RATE_HZ_MAX
        )
        self._raw_rate_hz = raw_sample_rate_hz
        self._declared_raw = declared_raw
        self._declared = declared or DeclaredAudio()
        self._decoders = decoders
        self._samples_left = duration_ms_max * SAMPLE_RATE_HZ // 1000
        self._source: _Source | None = None
        self._held = b""
        """First bytes of what may be a container or raw PCM: too few to decide."""
        self._anything_before = False
        self.took_raw = False
        """Whether anything was raw PCM."""
        self._ignores = False
        """The last container or stream was refused: what continues it would be noise."""
        self._notices: list[Notice] = []

    async def feed(
        self,
        data: bytes,
        *,
        whole: bool = False,
        continues: bool = False,
        more: bool = False,
        ends: bool = False,
    ) -> AudioDecoded:
        """Decode one chunk, or a piece of it. ``whole``: return all of its PCM now; only half a
        sample of raw PCM is carried over. ``continues``: ``data`` is not the chunk's first piece,
        so that no container begins in it. ``more``: nor is it the last. ``ends``: the container
        ends with ``data``.

        Raises:
            AudioError: the chunk is invalid; ``pcm`` of the error is the audio before the fault.
                The input stays usable. Chunks that continue refused data are ignored until a new
                container begins, because they would decode to noise. With ``whole`` the next chunk
                is on its own.
        """
        piece = _Piece(whole, more, ends)
        if continues and self._source is not None:
            return await self._decoded(data, None, piece)
        if not self._held and isinstance(self._source, _RawSource) and self._sniff(data) is None:
            return await self._decoded(data, None, piece, clean_start=self._in_raw_pcm)
        held, self._held = self._held, b""
        had_source = self._source is not None
        found, held, tail, tail_failure = await self._end_before(held, data)
        starts = had_source and self._source is None
        data = held + data
        if self._source is None and found in (None, "undecided") and not whole:
            if self._must_hold(found, data):
                self._held = data
                return AudioDecoded(
                    tail=tail,
                    pcm=b"",
                    more=more,
                    starts_container=starts,
                    clean_start=not held,
                    tail_failure=tail_failure,
                    notices=self._take_notices(),
                )
            if self._ignores:
                return AudioDecoded(pcm=b"", more=more)
        if found == "undecided":
            found = None
        begins = starts or self._begins(found, data)
        clean_start = not held and (begins or self._in_raw_pcm)
        if begins:
            starts = starts or self._anything_before
            last, failure = await self._end_source()
            tail, tail_failure = tail + last, tail_failure or failure
        with PcmSoFar(tail):
            decoded = await self._decoded(data, found, piece)
        return structs.replace(
            decoded,
            tail=tail,
            begins_container=begins,
            starts_container=starts,
            clean_start=clean_start,
            tail_failure=tail_failure,
        )

    async def _decoded(
        self, data: bytes, found: Container | None, piece: _Piece, *, clean_start: bool = False
    ) -> AudioDecoded:
        pcm = await self._feed_source(data, found, piece)
        return AudioDecoded(
            pcm=pcm,
            more=piece.more,
            ends_container=piece.whole or (self._source is not None and self._source.ended),
            clean_start=clean_start,
            notices=self._take_notices(),
        )

    async def finish(self) -> AudioDecoded:
        """End the audio. Returns the remaining PCM, or a part of it: call it again while it has
        ``more``.

        Raises:
            AudioError: ``bad_audio``, for half a sample left over or an incomplete container;
                ``pcm`` of the error is the remaining PCM.
        """
        try:
            with PcmSoFar() as pcm:
                if self._held and not self._ignores:
                    held, self._held = self._held, b""
                    pcm += await self._feed_source(held, None, _Piece())
                if self._source is not None:
                    pcm += await self._finish_source(partly=True)
                    if self._source.more:
                        return AudioDecoded(tail=bytes(pcm), more=True)
        except BaseException:
            await self.close()
            raise
        await self.close()
        return AudioDecoded(tail=bytes(pcm), notices=self._take_notices())

    async def close(self) -> None:
        """Free the decoder. Idempotent."""
        source, self._source = self._source, None
        if source is not None:
            await source.close()
            self._notices += source.notices

    def _take_notices(self) -> tuple[Notice, ...]:
        """Return the notices since the last call: containers have theirs when they end."""
        if self._source is not None and self._source.notices:
            self._notices += self._source.notices
            self._source.notices = []
        if not self._notices:
            return ()
        notices, self._notices = self._notices, []
        return tuple(dict.fromkeys(notices))

    def _must_hold(self, found: str | None, data: bytes) -> bool:
        """Whether more bytes are needed to determine the format of ``data``."""
        if found == "undecided" or not data:
            return True
        if self._ignores or self._declared_raw:
            return False
        if self._raw_rate_hz is None:
            return len(data) < SNIFF_BYTES_MAX
        if len(data) >= self._judged_bytes and raw_pcm.is_plausible(data[: self._judged_bytes]):
            return False
        return len(data) < max(self._judged_bytes, SNIFF_BYTES_MAX)

    @property
    def _judged_bytes(self) -> int:
        return int(raw_pcm.JUDGED_S * (self._raw_rate_hz or 0)) * BYTES_PER_SAMPLE

    def _begins(self, found: Container | None, data: bytes) -> bool:
        source = self._source
        if source is None or found is None:
            return found is not None
        if not source.ended:
            is_frame = not has_signature(found, data) or repeats(found, data)
            if source.container is not None and is_frame:
                return False  # A slice of MP4, say, may begin with a frame of MP3 or DTS.
            if BY_CONTAINER[found].rare and has_signature(found, data) and not begins_surely(data):
                return False
        return not source.continues(found, data)

    @property
    def _in_raw_pcm(self) -> bool:
        """The next chunk would be raw PCM that begins with a whole sample."""
        if self._source is None:
            return not self._ignores
        return isinstance(self._source, _RawSource) and not self._source.pcm.held

    async def _end_before(
        self, held: bytes, data: bytes
    ) -> tuple[Container | Literal["undecided"] | None, bytes, bytes, Failure | None]:
        """Find what begins with ``held`` and ``data``, and end what is over before it. Returns the
        container, its part of ``held``, and the last PCM and error of the ended source."""
        found = self._sniff(held + data)
        if found not in (None, "undecided"):
            return found, held, b"", None
        if held and (next_file := self._sniff(data)) not in (None, "undecided"):
            # The bytes held were all of something; this is the next file.
            return next_file, b"", *await self._end_held(held)
        if self._source is not None and self._source.is_over(held + data):
            # The new bytes may be of any kind again, as at the beginning of the session.
            return found, held, *await self._end_source()
        return found, held, b"", None

    def _sniff(self, data: bytes) -> Container | Literal["undecided"] | None:
        """As ``sniff``, but in G.711 no frames count: tones repeat their bytes as well."""
        found = sniff(data)
        if found is None or found == "undecided":
            return found
        is_g711 = self._declared.encoding in ("mulaw", "alaw")
        return None if is_g711 and not has_signature(found, data) else found

    async def _end_held(self, held: bytes) -> tuple[bytes, Failure | None]:
        """Decode bytes that were too few to decide, now that nothing follows them."""
        if self._ignores:
            return b"", None
        return await _last(self._feed_source(held, None, _Piece()))

    async def _end_source(self) -> tuple[bytes, Failure | None]:
        """End the current source. Returns its last PCM, and its error if it ends badly."""
        if self._source is None:
            return b"", None
        try:
            return await _last(self._finish_source())
        finally:
            await self.close()

    async def _finish_source(self, *, partly: bool = False) -> bytes:
        """Return the rest of the PCM of the current source, and of the files behind it. ``partly``:
        the last source may have ``more``."""
        with PcmSoFar() as pcm:
            while True:
                assert self._source is not None
                finish = self._source.finish if partly else self._source.finish_all
                pcm += self._spend(await finish(self._samples_left))
                if not self._source.rest:
                    return bytes(pcm)
                pcm += await self._feed_rest()

    async def _feed_source(self, data: bytes, found: Container | None, piece: _Piece) -> bytes:
        """Decode ``data`` with the current source, or with a new one if there is none."""
        try:
            with PcmSoFar() as pcm:
                if self._source is None and data:
                    self._ignores = False
                    self._source, data = self._new_source(found, data)
                    self._anything_before = True
                if self._source is not None:
                    pcm += await self._feed_current(data)
                    while self._source.rest:
                        pcm += await self._feed_rest()
                    if piece.whole and not piece.more:
                        if isinstance(self._source, _RawSource):
                            pcm += self._spend(self._source.flush())
                        else:
                            pcm += await self._finish_source()
                            await self.close()
                    elif piece.ends and self._source.container and not self._source.ended:
                        pcm += await self._finish_source()
        except BaseException as error:
            if isinstance(error, AudioError):
                self._ignores = not piece.whole
            await self.close()
            raise
        return bytes(pcm)

    async def _feed_rest(self) -> bytes:
        """A file of another container follows the end of the current one."""
        assert self._source is not None
        rest = self._source.rest
        with PcmSoFar() as pcm:
            if not self._source.is_empty:
                pcm += self._spend(await self._source.finish_all(self._samples_left))
            await self.close()
            found = sniff(rest)
            assert found is not None and found != "undecided"
            self._source, rest = self._new_source(found, rest)
            pcm += await self._feed_current(rest)
        return bytes(pcm)

    async def _feed_current(self, data: bytes) -> bytes:
        assert self._source is not None
        try:
            return self._spend(await self._source.feed(data, self._samples_left))
        except OtherCodecError as other:  # A WAV file whose codec only libavformat knows.
            self._source = _EncodedSource("wav", self._decoders)
            return self._spend(await self._source.feed(other.data, self._samples_left))

    def _new_source(self, found: Container | None, data: bytes) -> tuple[_Source, bytes]:
        """Return the source of ``data``, and the part of ``data`` that it takes."""
        if found == "wav":
            return _WavSource(self._declared), data
        if found is not None:
            if self._declared_raw and self._declared.encoding is not None:
                title, encoding = BY_CONTAINER[found].title, self._declared.encoding
                message = f"the audio is a {title} file, not {encoding}"
                self._notices.append(Notice("header_used", message))
            return _EncodedSource(found, self._decoders), data
        if self._raw_rate_hz is not None and self._declared_raw:
            self.took_raw = True
            return _RawSource(self._declared.raw(self._raw_rate_hz), declared=True), data
        if (name := foreign(data)) is not None:
            raise AudioError("bad_audio", f"this is {name}, and not {TITLES}")
        # Behind padding and a few bytes of something else, such as a byte order mark or an HTTP
        # header. Some beginnings have a few zeros of their own.
        begun = data[max(0, len(data) - len(data.lstrip(b"\0")) - SIGNATURE_ZEROS_MAX) :]
        if (begin := find_beginning(begun[:UNKNOWN_BYTES_MAX])) is not None:
            container = sniff(begun[begin:])
            if container is not None and container != "undecided":
                return self._new_source(container, begun[begin:])
        why = f"this is not {TITLES}"
        judged = data[: self._judged_bytes]
        if self._raw_rate_hz is not None and raw_pcm.is_plausible(judged):
            self.took_raw = True
            return _RawSource(self._declared.raw(self._raw_rate_hz), declared=False), data
        if (frames := find_frames(data)) is not None:
            framed, offset = frames
            return _EncodedSource(framed, self._decoders), data[offset:]
        if self._raw_rate_hz is not None:
            form = raw_pcm.other_form(judged)
            why += ", and no 16-bit PCM: "
            why += f"it looks like {form}" if form else "its samples do not depend on each other"
        return _EncodedSource(None, self._decoders, why), data

    def _spend(self, pcm: bytes) -> bytes:
        """Count ``pcm`` against the session's limit."""
        samples = len(pcm) // BYTES_PER_SAMPLE
        if samples > self._samples_left:
            kept = pcm[: self._samples_left * BYTES_PER_SAMPLE]
            self._samples_left = 0
            raise AudioError("audio_too_long", "the session's audio is longer than allowed", kept)
        self._samples_left -= samples
        return pcm


async def _last(decoding: Awaitable[bytes]) -> tuple[bytes, Failure | None]:
    """The last PCM of a source, and its error if it ends badly."""
    try:
        return await decoding, None
    except AudioError as error:
        return error.pcm, Failure(code=error.code, message=str(error))


# ----------------------------------------------------------------------------- where PCM comes from


class _Source:
    """One container, or raw PCM, being decoded. ``samples_left``: the session's limit."""

    container: Container | None = None
    """None: raw PCM."""
    ended: bool = False
    """The container seems to end with the bytes so far."""
    more: bool = False
    """``finish`` has further PCM."""
    rest: bytes = b""
    """The first bytes of a file of another container, found behind this one."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        """New ones about audio or bytes of it that were not used. Complete when it is closed."""

    @property
    def is_empty(self) -> bool:
        """Whether only tags of the next file were found."""
        return False

    def continues(self, found: Container, data: bytes) -> bool:
        """Whether ``data``, which looks like the beginning of a container, continues this one."""
        return False

    def is_over(self, data: bytes) -> bool:
        """Whether ``data``, which begins no container, cannot belong to this one."""
        return False

    async def feed(self, data: bytes, samples_left: int) -> bytes:
        raise NotImplementedError

    async def finish(self, samples_left: int) -> bytes:
        """The rest of the PCM, or a part of it if there is ``more``."""
        raise NotImplementedError

    async def finish_all(self, samples_left: int) -> bytes:
        """The rest of the PCM, at most ``FEED_AUDIO_S_MAX`` of it."""
        samples_left = min(samples_left, FEED_AUDIO_S_MAX * SAMPLE_RATE_HZ)
        with PcmSoFar() as pcm:
            while True:
                pcm += await self.finish(samples_left - len(pcm) // BYTES_PER_SAMPLE)
                if not self.more:
                    return bytes(pcm)

    async def close(self) -> None:
        pass


IN_PAIRS: Final = (
    "each sample occurs twice, as in PCM of two channels; it is taken for that of one channel"
)
IN_TURNS: Final = (
    "even and odd samples differ, as in PCM of two channels; it is taken for that of one channel"
)


class _RawSource(_Source):
    """Refuses samples of another form, once there is sound. ``declared``: the client says that they
    are of this ``form``, and gets a notice instead."""

    def __init__(self, form: WavFormat, *, declared: bool) -> None:
        super().__init__()
        self.pcm = MonoPcm(form)
        self._resampler = _Resampler(form.sample_rate_hz)
        stretches = raw_pcm.DECLARED_NOISE_STRETCHES if declared else raw_pcm.FORM_STRETCHES
        self._form: raw_pcm.FormJudge | None = raw_pcm.FormJudge(form.sample_rate_hz, stretches)
        self._declared = declared
        self._told_channels = False

    async def feed(self, data: bytes, samples_left: int) -> bytes:
        pcm = self.pcm.convert(data)
        if self._form is not None and (name := self._form.feed(pcm)) is not None:
            if not self._declared:
                message = f"this is no mono 16-bit PCM: it looks like {name}"
                raise AudioError("bad_audio", message, was_noise=True)
            message = f"the audio is not as declared: it looks like {name}"
            self.notices.append(Notice("other_samples", message))
            self._form = None
        elif self._form is not None and not self._told_channels:
            self._told_channels = self._form.in_pairs or self._form.in_turns
            if self._told_channels:
                message = IN_PAIRS if self._form.in_pairs else IN_TURNS
                self.notices.append(Notice("other_samples", message))
        return self._resampler.convert(pcm)

    def flush(self) -> bytes:
        """The PCM of the bytes so far that filters hold back. More may follow."""
        return self._resampler.convert(self.pcm.flush()) + self._resampler.flush()

    async def finish(self, samples_left: int) -> bytes:
        pcm = self.flush()
        if self.pcm.held:
            raise AudioError("bad_audio", "the PCM ends in the middle of a sample", pcm)
        return pcm


class _WavSource(_Source):
    container = "wav"

    def __init__(self, declared: DeclaredAudio) -> None:
        super().__init__()
        self._declared = declared
        self._reader = WavReader()
        self._resampler = _Resampler(SAMPLE_RATE_HZ)
        self._form: raw_pcm.FormJudge | None = None

    async def feed(self, data: bytes, samples_left: int) -> bytes:
        pieces = self._reader.feed(data)
        pcm = b"".join(self._convert(piece.format.sample_rate_hz, piece.pcm) for piece in pieces)
        for piece in pieces:
            self._judge(piece)
        self.ended = self._reader.complete
        return self._checked(pcm + self._resampler.flush() if self.ended else pcm)

    async def finish(self, samples_left: int) -> bytes:
        self.rest = b""
        pcm = self._resampler.convert(self._reader.finish()) + self._resampler.flush()
        found = (("truncated", self._reader.missing), ("loudest_only", self._reader.notice))
        self.notices += [Notice(code, message) for code, message in found if message]
        pcm = self._checked(pcm)
        if self._form is None and not pcm and not self.rest:
            raise AudioError("bad_audio", "the WAV file has no samples")
        return pcm

    def _judge(self, piece: WavPcm) -> None:
        """The header may be wrong about the samples."""
        if self._form is None:
            self._form = raw_pcm.FormJudge(
                piece.format.sample_rate_hz, raw_pcm.DECLARED_NOISE_STRETCHES
            )
            if message := self._declared.contradiction(piece.format):
                self.notices.append(Notice("header_used", message))
        if (name := self._form.feed(piece.pcm)) is not None:
            message = f"the WAV file is not what its header says: it looks like {name}"
            raise AudioError("bad_audio", message, was_noise=True)

    def _checked(self, pcm: bytes) -> bytes:
        """Take over the next file or the error that the reader found behind the audio."""
        self.rest = self._reader.rest
        self._reader.rest = b""
        if (fault := self._reader.fault) is not None:
            fault.pcm = pcm + self._resampler.flush()
            raise fault
        return pcm

    def _convert(self, sample_rate_hz: int, pcm: bytes) -> bytes:
        flushed = b""
        if sample_rate_hz != self._resampler.rate_hz:
            flushed = self._resampler.flush()
            self._resampler = _Resampler(sample_rate_hz)
        return flushed + self._resampler.convert(pcm)


KEEPS_HEADER: Final = frozenset({"wv", "ape", "flac"})
"""Containers that may start with the header of the file that was compressed."""


WALKED_BYTES_MAX: Final = 8_192
"""Bytes in which the end of a file is looked for on the event loop: units may have a single byte,
and each takes a microsecond. More bytes take a thread."""
UNKNOWN_BYTES_MAX: Final = 2_048
"""Fewer bytes before or behind a file, such as padding, are no audio."""
SIGNATURE_ZEROS_MAX: Final = 8


LARGE_UNITS: Final = frozenset({"ogg", "caf", "w64", "mov"})
"""Containers whose units hold much audio, and whose headers do not always tell its duration. A file
that ends in the middle of a unit is cut."""


class _EncodedSource(_Source):
    """``container`` None: libavformat looks for it. ``unknown``: the error message if it finds
    none."""

    def __init__(
        self, container: Container | None, decoders: DecoderPool, unknown: str = ""
    ) -> None:
        super().__init__()
        self.container = container
        self._decoders = decoders
        self._unknown = unknown
        self._stream: EncodedStream | None = None
        self._heard = False
        self._pages = OggPages() if container == "ogg" else None
        self._next = NextFile(container)

    @property
    def is_empty(self) -> bool:
        return self._next.only_tags

    def continues(self, found: Container, data: bytes) -> bool:
        if not self._heard and self.container in KEEPS_HEADER and found in ("wav", "aiff"):
            return True
        return found == self.container and repeats(found, data)

    def is_over(self, data: bytes) -> bool:
        if self._stream is not None and not data.strip(b"\0"):
            return False  # Padding.
        # A page behind the last one shows that it was not the last.
        return self.ended and (self._pages is None or not b"OggS".startswith(data[:4]))

    async def feed(self, data: bytes, samples_left: int) -> bytes:
        if len(data) > WALKED_BYTES_MAX:
            data, self.rest = await asyncio.to_thread(self._next.feed, data)
        else:
            data, self.rest = self._next.feed(data)
        return await self._decode(data, samples_left)

    async def _decode(self, data: bytes, samples_left: int) -> bytes:
        if not data:
            return b""
        opening = b""
        if self._stream is None:
            self._stream = await self._decoders.open(self.container)
            if self.ended and self._pages is not None:
                self.ended = False
                opening = self._pages.headers
        try:
            pcm = await self._stream.feed(opening + data, samples_left)
        except AudioError as error:
            raise self._named(error) from error
        self._heard = self._heard or bool(pcm)
        self.ended = self._stream.ended
        if self._pages is not None and self._pages.feed(data) and not self._next.held:
            pcm += await self.finish_all(samples_left - len(pcm) // BYTES_PER_SAMPLE)
        return pcm

    async def finish(self, samples_left: int) -> bytes:
        held, rest = self._next.finish()
        self.rest = self.rest or rest
        has_ended = self._stream is not None and self._stream.ended
        pcm = b"" if has_ended else await self._decode(held, samples_left)
        self.ended = True
        if self._stream is None:
            return pcm
        self.more = False
        try:
            pcm += await self._stream.finish(samples_left)
            self.more = not self._stream.ended
        except AudioError as error:
            raise self._named(error) from error
        finally:
            if not self.more:
                await self.close()
        return pcm

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        await stream.close()
        self.notices += stream.notices
        is_named = any(notice.code == "truncated" for notice in stream.notices)
        message = cut_within(self._next.missing_bytes)
        if message and not is_named and self.container in LARGE_UNITS:
            self.notices.append(Notice("truncated", message))
        unknown_bytes = self._next.unknown_bytes
        if unknown_bytes > UNKNOWN_BYTES_MAX:
            title = "" if self.container is None else f"{BY_CONTAINER[self.container].title} "
            message = f"{unknown_bytes} bytes in or behind the {title}file are no part of it"
            self.notices.append(Notice("unknown_data", message))

    def _named(self, error: AudioError) -> AudioError:
        if self._unknown and error.code == "bad_audio" and not error.pcm:
            return AudioError(error.code, self._unknown)
        return error


class _Resampler:
    """Converts mono s16le PCM of any rate to 16 kHz, in pieces of any size (libswresample)."""

    def __init__(self, sample_rate_hz: int) -> None:
        self.rate_hz = sample_rate_hz
        self._inner: av.AudioResampler | None = None

    def convert(self, pcm: bytes) -> bytes:
        """The PCM that is ready. The filter holds back its length, about a millisecond."""
        if self.rate_hz == SAMPLE_RATE_HZ or not pcm:
            return pcm
        if self._inner is None:
            self._inner = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
        samples = np.frombuffer(pcm, "<i2").reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = self.rate_hz
        return self._resample(frame)

    def flush(self) -> bytes:
        """The remaining PCM. Resets the filter."""
        if self._inner is None:
            return b""
        pcm = self._resample(None)
        self._inner = None
        return pcm

    def _resample(self, frame: av.AudioFrame | None) -> bytes:
        assert self._inner is not None
        return b"".join(
            bytes(part.planes[0])[: part.samples * BYTES_PER_SAMPLE]
            for part in self._inner.resample(frame)
        )
