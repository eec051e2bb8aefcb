"""Core: decoded audio and speech probabilities in, utterances with their PCM out.

A chunk takes three calls: ``append`` its PCM, detect speech in ``take_frames``, ``take`` the
probabilities. A large chunk takes them for each of its pieces. In mode chunk there are no frames
and each chunk is one utterance.

File boundaries (mode auto) are where one container, such as a whole WAV or WebM file, ended and
another may begin. A file that ends in silence ends its utterance there. A file that ends in speech
was probably cut by a recorder inside a word, so its audio is joined to the next file's. If no file
follows in time, ``tick`` ends the utterance.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from gateway.audio.timeline import (
    FRAME_SAMPLES,
    WARM_UP_SAMPLES,
    AudioDecoded,
    Timeline,
    samples_to_ms,
)
from gateway.audio.tones import is_tone
from gateway.session.endpointer import Endpointer, EndpointerConfig, Utterance
from gateway.session.events import Mode
from gateway.session.limits import SessionLimits
from gateway.session.resume import NEW_SESSION, ResumePoint
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

FILE_BOUNDARY_SILENCE_MS = 192
"""Silence at a file's end that shows that it was not cut inside a word."""

END_SILENCE = bytes(SAMPLE_RATE_HZ * 300 // 1000 * BYTES_PER_SAMPLE)
"""Follows an utterance that ends with the audio, in speech: models lose a last word without it."""


class CutUtterance(Struct, frozen=True, kw_only=True):
    """An utterance with its position on the session's timeline."""

    start_ms: int
    end_ms: int
    last_chunk_index: int
    pcm: bytes
    resume_chunk_index: int
    """Decoding of the audio that follows can restart at this chunk …"""
    resume_sample: int
    """… whose audio begins at this sample."""
    continues: bool = False
    """It was cut at the limit, and the speech continues."""
    silence_before_ms: int = 0
    """Silence before its first speech."""


class Segmenter:
    """One session's path from audio to utterances."""

    def __init__(
        self,
        mode: Mode,
        config: EndpointerConfig,
        limits: SessionLimits,
        resume_point: ResumePoint = NEW_SESSION,
    ) -> None:
        self.timeline = Timeline(resume_point.first_sample, resume_point.next_chunk_index)
        self.chunk_start_sample = resume_point.first_sample
        """Start of the last chunk's audio."""
        self._mode = mode
        self._limits = limits
        self._endpointer = Endpointer(
            config,
            first_sample=self.timeline.framed_samples,
            recognised_samples=resume_point.recognised_samples,
        )
        self._frames = b""
        self._no_tone_sample = -1
        """Start of the open utterance, once it was found to be no tone."""
        self._finished = False
        self._chunk_waits = False
        """Mode chunk: the next ``take`` returns the last chunk."""
        self.whole_file = False
        """The last chunk holds one whole file."""
        self._begins_file = False
        self._in_chunk = False
        """A piece of a chunk was appended, and further ones follow."""
        self._recognised_chunk_index = resume_point.recognised_chunk_index
        self._last_chunk_index = 0
        self._file_boundaries: list[int] = []
        """Samples. A boundary at the end of the audio waits for a further file."""
        self._boundary_wait_s = 0.0
        self._boundary_until_s: float | None = None

    @property
    def duration_ms(self) -> int:
        return samples_to_ms(self.timeline.total_samples)

    @property
    def chunk_duration_ms(self) -> int:
        """Duration of the last chunk's audio."""
        return samples_to_ms(self.timeline.total_samples - self.chunk_start_sample)

    @property
    def open_utterance_ms(self) -> tuple[int, int] | None:
        """Start, and end so far, of the utterance being spoken; None in silence."""
        start_sample = self._endpointer.speech_start_sample
        return None if start_sample is None else (samples_to_ms(start_sample), self.duration_ms)

    @property
    def settled_ms(self) -> int:
        """No later utterance begins before this, except for its pre-roll."""
        start_sample = self._endpointer.speech_start_sample
        return samples_to_ms(self.timeline.total_samples if start_sample is None else start_sample)

    @property
    def speech_start_ms(self) -> tuple[int, int] | None:
        """Start of the utterance being spoken, and the silence before its speech, once it is long
        enough not to be a click; else None."""
        start = self._endpointer.certain_start
        return None if start is None else (samples_to_ms(start[0]), samples_to_ms(start[1]))

    @property
    def trailing_silence_ms(self) -> int:
        return self._endpointer.trailing_silence_ms

    def open_utterance(self) -> CutUtterance | None:
        """The utterance being spoken so far, for a partial result; None if it is a tone."""
        start_sample = self._endpointer.speech_start_sample
        assert start_sample is not None
        utterance = self._as_cut(Utterance(start_sample, self.timeline.total_samples))
        # Once is enough: it takes half a millisecond of the event loop.
        if start_sample != self._no_tone_sample:
            if is_tone(utterance.pcm):
                return None
            self._no_tone_sample = start_sample
        return utterance

    def end_utterance(self) -> list[CutUtterance]:
        """The open utterance ends with the audio so far."""
        if self._mode == "chunk":
            return []
        self._boundary_until_s = None
        self._file_boundaries.clear()
        return self._cut(self._endpointer.boundary(self.timeline.total_samples))

    # ------------------------------------------------------------------------------------ one chunk

    def chunk_received(self) -> None:
        """A chunk is being decoded: an open file boundary waits for its audio."""
        self._boundary_until_s = None

    def append(self, chunk_index: int, audio: AudioDecoded) -> None:
        timeline = self.timeline
        if not self._in_chunk:
            timeline.append(audio.tail)
            if audio.starts_container:
                self._add_file_boundary()
            self.chunk_start_sample = timeline.total_samples
            timeline.begin_chunk(chunk_index, clean_start=audio.clean_start)
            self._begins_file = audio.begins_container
        self._in_chunk = audio.more
        self.whole_file = self._begins_file and audio.ends_container and not audio.more
        timeline.append(audio.pcm)
        timeline.end_chunk(chunk_index)
        if audio.ends_container and not audio.more:
            self._add_file_boundary()
        self._last_chunk_index = chunk_index
        if self._mode != "chunk":
            self._frames = timeline.take_frames()
        elif not audio.more:
            self._chunk_waits = True

    def skip_chunk(self) -> None:
        """The chunk has no audio, or no more than its pieces so far."""
        if not self._in_chunk:
            self.chunk_start_sample = self.timeline.total_samples
        self._in_chunk = self.whole_file = False

    def finish(self, tail: bytes, *, more: bool = False) -> None:
        """There is no more audio than ``tail``, unless ``more`` of it follows. The last frame is
        padded with silence."""
        self._finished = not more
        self._file_boundaries.clear()
        self.chunk_start_sample = self.timeline.total_samples
        self.timeline.append(tail)
        if self._mode != "chunk":
            self._frames = self.timeline.take_frames()
            if not more:
                self._frames += self.timeline.take_last_frame()
        elif tail:
            self._chunk_waits = True

    def take_frames(self) -> bytes:
        """Whole frames of the audio just appended; run speech detection over them."""
        frames, self._frames = self._frames, b""
        return frames

    def take(self, probabilities: Sequence[float], now_s: float) -> list[CutUtterance]:
        """Utterances that are complete. Call it without frames too: a file boundary may end an
        utterance."""
        if self._mode == "chunk":
            return self._take_whole_chunk()
        utterances: list[Utterance] = []
        if self._file_boundaries:
            utterances, probabilities = self._pass_file_boundaries(probabilities)
            if self._file_boundaries and not self._finished:
                wait_s = self.chunk_duration_ms / 1000 + self._limits.file_boundary_wait_extra_s
                self._boundary_wait_s = min(wait_s, self._limits.file_boundary_wait_s_max)
                self._boundary_until_s = now_s + self._boundary_wait_s
        utterances += self._endpointer.push(probabilities)
        if self._finished:
            utterances += self._endpointer.boundary(self.timeline.total_samples)
        return self._cut(utterances)

    def _take_whole_chunk(self) -> list[CutUtterance]:
        """The last chunk as one utterance, silent or not."""
        if not self._chunk_waits:
            return []
        self._chunk_waits = False
        end_sample = self.timeline.total_samples
        utterance = _with_silence(self._as_cut(Utterance(self.chunk_start_sample, end_sample)))
        self.timeline.take_frames()
        self.timeline.forget_before(end_sample)
        # A chunk that already has a result was decoded again only for the audio that follows it.
        return [utterance] if self._last_chunk_index > self._recognised_chunk_index else []

    # ------------------------------------------------------------------------------ file boundaries

    def _add_file_boundary(self) -> None:
        sample = self.timeline.total_samples
        if self._mode == "auto" and sample > 0 and sample not in self._file_boundaries:
            self._file_boundaries.append(sample)

    def _pass_file_boundaries(
        self, probabilities: Sequence[float]
    ) -> tuple[list[Utterance], Sequence[float]]:
        """Utterances that end at file boundaries, and the probabilities of the audio after the
        last. The boundaries that remain wait for a further file."""
        utterances: list[Utterance] = []
        waiting: list[int] = []
        for boundary in self._file_boundaries:
            frames = max(0, (boundary - self._endpointer.position) // FRAME_SAMPLES)
            utterances += self._endpointer.push(probabilities[:frames])
            probabilities = probabilities[frames:]
            if self._endpointer.trailing_silence_ms >= FILE_BOUNDARY_SILENCE_MS:
                utterances += self._endpointer.end_in_silence()
            elif boundary == self.timeline.total_samples:
                waiting.append(boundary)
        self._file_boundaries = waiting
        return utterances, probabilities

    def tick(self, now_s: float, *, listening: bool) -> list[CutUtterance]:
        """Return the utterance of the last file if no further file arrived in time. Time stops
        while the gateway is not ``listening``: the client is disconnected, or its next file waits
        in the socket."""
        if self._boundary_until_s is None:
            return []
        if not listening:
            self._boundary_until_s = now_s + self._boundary_wait_s
        if now_s < self._boundary_until_s:
            return []
        return self.end_utterance()

    # -------------------------------------------------------------------------------------- cutting

    def _cut(self, utterances: list[Utterance]) -> list[CutUtterance]:
        cut = [self._as_cut(each) for each in utterances]
        self.timeline.forget_before(self._endpointer.safe_to_forget_sample)
        if not cut:
            return []
        total = self.timeline.total_samples
        return [
            _with_silence(each) if utterance.end_sample >= total else each
            for utterance, each in zip(utterances, cut, strict=True)
            if not is_tone(each.pcm)
        ]

    def _as_cut(self, utterance: Utterance) -> CutUtterance:
        """The utterance, which may end in the padding of the last frame, with its audio."""
        start_sample = utterance.start_sample
        end_sample = min(utterance.end_sample, self.timeline.total_samples)
        last_chunk_index, restart_sample = self._last_chunk_index, start_sample
        if self._mode != "chunk":
            last_chunk_index = self.timeline.chunk_index_at(end_sample)
            restart_sample = max(0, end_sample - WARM_UP_SAMPLES)
        resume_sample, resume_chunk_index = self.timeline.clean_start_before(restart_sample)
        return CutUtterance(
            start_ms=samples_to_ms(start_sample),
            end_ms=samples_to_ms(end_sample),
            last_chunk_index=last_chunk_index,
            pcm=self.timeline.cut(start_sample, end_sample),
            resume_chunk_index=resume_chunk_index,
            resume_sample=resume_sample,
            continues=utterance.continues,
            silence_before_ms=samples_to_ms(utterance.silence_before),
        )


def _with_silence(utterance: CutUtterance) -> CutUtterance:
    return replace(utterance, pcm=utterance.pcm + END_SILENCE)
