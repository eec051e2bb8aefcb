"""Decodes one session's audio: chunks in, one continuous stream of 16 kHz mono s16le PCM out.

A chunk that begins with a container's magic begins a new container. Any other chunk continues the
current container, or is raw PCM if there is none. The PCM does not depend on where chunks were cut.
"""

from __future__ import annotations

import av
import numpy as np

from gateway.audio.decoder_pool import DecoderPool, EncodedStream
from gateway.audio.formats import (
    RAW_SAMPLE_RATE_HZ_MAX,
    RAW_SAMPLE_RATE_HZ_MIN,
    TITLES,
    AudioError,
    Container,
    OggPages,
    sniff,
)
from gateway.audio.timeline import AudioDecoded
from gateway.audio.wav import WavReader
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, Failure


class AudioInput:
    """Feed the session's chunks in order, one at a time, and always ``close`` it.

    ``raw_sample_rate_hz`` is the sample rate of raw PCM; containers carry their own. None: raw PCM
    is ``bad_audio``. ``duration_ms_max`` is the longest session.
    """

    def __init__(
        self, raw_sample_rate_hz: int | None, decoders: DecoderPool, duration_ms_max: int
    ) -> None:
        assert (
            raw_sample_rate_hz is None
            or RAW_SAMPLE_RATE_HZ_MIN <= raw_sample_rate_hz <= RAW_SAMPLE_RATE_HZ_MAX
        )
        self._raw_rate_hz = raw_sample_rate_hz
        self._decoders = decoders
        self._samples_left = duration_ms_max * SAMPLE_RATE_HZ // 1000
        self._source: _Source | None = None
        self._source_chunks = 0
        self._held = b""
        """First bytes of the session that may still become a container's magic."""
        self._anything_before = False
        self._stream_is_broken = False

    async def feed(self, data: bytes, *, whole: bool = False) -> AudioDecoded:
        """Decode one chunk. ``whole``: return all of its PCM now; only half a sample of raw PCM is
        carried over.

        Raises:
            AudioError: the chunk is invalid; ``pcm`` of the error is the audio before the fault.
                The input stays usable: the container is abandoned and the next chunk is sniffed.
                Chunks that continue a broken stream are refused until a new container begins,
                because they would decode to noise.
        """
        held_before = bool(self._held)
        data = self._held + data
        self._held = b""
        found = sniff(data)
        if self._source is None and found == "undecided" and not whole:
            self._refuse_broken_stream()
            self._held = data
            return AudioDecoded(pcm=b"", clean_start=not held_before)
        tail, tail_failure, starts = b"", None, False
        begins = found not in (None, "undecided") and not self._continues(found, data)
        clean_start = not held_before and (begins or self._in_raw_pcm)
        if begins:
            starts = self._anything_before
            tail, tail_failure = await self._end_source()
        try:
            pcm = await self._feed_source(data, None if found == "undecided" else found, whole)
        except AudioError as error:
            error.pcm = tail + error.pcm
            raise
        ends = whole or (self._source is not None and self._source.ended)
        return AudioDecoded(
            tail=tail,
            pcm=pcm,
            starts_container=starts,
            ends_container=ends,
            clean_start=clean_start,
            tail_failure=tail_failure,
        )

    async def finish(self) -> bytes:
        """End the audio. Returns the remaining PCM.

        Raises:
            AudioError: ``bad_audio``, for half a sample left over or an incomplete container;
                ``pcm`` of the error is the remaining PCM.
        """
        pcm = b""
        try:
            if self._held:
                held, self._held = self._held, b""
                pcm = await self._feed_source(held, None, whole=False)
            if self._source is not None:
                pcm += self._spend(await self._source.finish(self._samples_left))
        except AudioError as error:
            error.pcm = pcm + error.pcm
            raise
        finally:
            await self.close()
        return pcm

    async def close(self) -> None:
        """Free the decoder. Idempotent."""
        source, self._source = self._source, None
        if source is not None:
            await source.close()

    def _continues(self, found: str | None, data: bytes) -> bool:
        """Whether the apparent beginning of a container continues the current one: every frame of
        an MP3 stream looks alike."""
        return found == "mp3" and not data.startswith(b"ID3") and self._container == "mp3"

    @property
    def _in_raw_pcm(self) -> bool:
        """The next chunk would be raw PCM that begins with a whole sample."""
        if self._source is None:
            return not self._stream_is_broken
        return isinstance(self._source, _RawSource) and not self._source.half_sample

    @property
    def _container(self) -> Container | None:
        return self._source.container if self._source is not None else None

    async def _end_source(self) -> tuple[bytes, Failure | None]:
        """End the current source. Returns its last PCM, and its error if it ends badly."""
        try:
            if self._source is None:
                return b"", None
            return self._spend(await self._source.finish(self._samples_left)), None
        except AudioError as error:
            return error.pcm, Failure(code=error.code, message=str(error))
        finally:
            await self.close()

    async def _feed_source(self, data: bytes, found: Container | None, whole: bool) -> bytes:
        """Decode ``data`` with the current source, or with a new one if there is none."""
        pcm = b""
        try:
            if self._source is None:
                self._refuse_broken_stream(found)
                self._source = await self._new_source(found)
                self._source_chunks = 0
            self._source_chunks += 1
            self._anything_before = True
            pcm = self._spend(await self._source.feed(data, self._samples_left))
            if whole:
                pcm += self._spend(await self._source.finish_chunk(self._samples_left))
                if found is not None:
                    await self.close()
        except AudioError as error:
            error.pcm = pcm + error.pcm
            # A container that fails in its first chunk was one bad chunk. One that fails later, or
            # before its decoder was opened, is a stream. Its further chunks would be noise as PCM.
            if self._source is not None:
                self._stream_is_broken = self._container is not None and self._source_chunks > 1
            elif found is not None:
                self._stream_is_broken = True
            await self.close()
            raise
        except BaseException:
            await self.close()
            raise
        return pcm

    def _refuse_broken_stream(self, found: Container | None = None) -> None:
        if self._stream_is_broken and found is None:
            raise AudioError("bad_audio", "this continues a container that could not be decoded")
        self._stream_is_broken = False

    async def _new_source(self, container: Container | None) -> _Source:
        if container is None:
            if self._raw_rate_hz is None:
                raise AudioError("bad_audio", f"this is not {TITLES}")
            return _RawSource(self._raw_rate_hz)
        if container == "wav":
            return _WavSource()
        return _EncodedSource(container, await self._decoders.open(container))

    def _spend(self, pcm: bytes) -> bytes:
        """Count ``pcm`` against the session's limit."""
        samples = len(pcm) // BYTES_PER_SAMPLE
        if samples > self._samples_left:
            kept = pcm[: self._samples_left * BYTES_PER_SAMPLE]
            self._samples_left = 0
            raise AudioError("audio_too_long", "the session's audio is longer than allowed", kept)
        self._samples_left -= samples
        return pcm


# ----------------------------------------------------------------------------- where PCM comes from


class _Source:
    """One container, or raw PCM, being decoded. ``samples_left``: the session's limit."""

    container: Container | None = None
    ended: bool = False
    """The container is known to end with the bytes so far."""

    async def feed(self, data: bytes, samples_left: int) -> bytes:
        raise NotImplementedError

    async def finish(self, samples_left: int) -> bytes:
        raise NotImplementedError

    async def finish_chunk(self, samples_left: int) -> bytes:
        """All PCM of the bytes so far, flushed out of filters. Only raw PCM may continue."""
        return await self.finish(samples_left)

    async def close(self) -> None:
        pass


class _RawSource(_Source):
    def __init__(self, sample_rate_hz: int) -> None:
        self._resampler = _Resampler(sample_rate_hz)
        self.half_sample = b""

    async def feed(self, data: bytes, samples_left: int) -> bytes:
        data = self.half_sample + data
        whole = len(data) - len(data) % BYTES_PER_SAMPLE
        self.half_sample = data[whole:]
        return self._resampler.convert(data[:whole])

    async def finish_chunk(self, samples_left: int) -> bytes:
        return self._resampler.flush()

    async def finish(self, samples_left: int) -> bytes:
        pcm = self._resampler.flush()
        if self.half_sample:
            raise AudioError("bad_audio", "the PCM ends in the middle of a 16-bit sample", pcm)
        return pcm


class _WavSource(_Source):
    container = "wav"

    def __init__(self) -> None:
        self._reader = WavReader()
        self._resampler: _Resampler | None = None

    async def feed(self, data: bytes, samples_left: int) -> bytes:
        pcm = self._reader.feed(data)
        if self._reader.format is None:
            return b""
        if self._resampler is None:
            self._resampler = _Resampler(self._reader.format.sample_rate_hz)
        converted = self._resampler.convert(pcm)
        self.ended = self._reader.complete
        return converted + self._resampler.flush() if self.ended else converted

    async def finish(self, samples_left: int) -> bytes:
        self._reader.finish()
        return b"" if self._resampler is None else self._resampler.flush()


class _EncodedSource(_Source):
    def __init__(self, container: Container, stream: EncodedStream) -> None:
        self.container = container
        self._stream = stream
        self._pages = OggPages() if container == "ogg" else None

    async def feed(self, data: bytes, samples_left: int) -> bytes:
        if self.ended:
            raise AudioError("bad_audio", "this follows the end of the audio stream")
        pcm = await self._stream.feed(data, samples_left)
        if self._pages is not None and self._pages.feed(data):
            pcm += await self.finish(samples_left - len(pcm) // BYTES_PER_SAMPLE)
        return pcm

    async def finish(self, samples_left: int) -> bytes:
        if self.ended:
            return b""
        self.ended = True
        try:
            return await self._stream.finish(samples_left)
        finally:
            await self._stream.close()

    async def close(self) -> None:
        await self._stream.close()


class _Resampler:
    """Converts mono s16le PCM of any rate to 16 kHz, in pieces of any size (libswresample)."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._inner: av.AudioResampler | None = None

    def convert(self, pcm: bytes) -> bytes:
        """The PCM that is ready. The filter holds back its length, about a millisecond."""
        if self._rate_hz == SAMPLE_RATE_HZ or not pcm:
            return pcm
        if self._inner is None:
            self._inner = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
        samples = np.frombuffer(pcm, "<i2").reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = self._rate_hz
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
