"""SANS-IO: decoded audio and speech probabilities in, utterances with their PCM out.

File boundaries: where one container (a whole WAV, WebM … file) ended and another may begin. A file
ending in silence ends its utterance there. A file ending in speech was probably cut by a recorder
inside a word, so its audio is joined to the next file's; the session gives up waiting for that with
``close_file_boundary``.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from gateway.audio.timeline import FRAME_SAMPLES, WARM_UP_SAMPLES, Timeline, samples_to_ms
from gateway.session.endpointer import Endpointer, EndpointerConfig, Utterance
from gateway.session.resume import ResumePoint

FILE_BOUNDARY_SILENCE_MS = 192
"""Silence at a file's end that says it was not cut inside a word."""
NEW_SESSION = ResumePoint()


class CutUtterance(Struct, frozen=True, kw_only=True):
    """An utterance with its place on the session's timeline."""

    start_ms: int
    end_ms: int
    last_chunk_index: int
    pcm: bytes
    resume_chunk_index: int
    """What follows can be decoded again from this chunk on …"""
    resume_sample: int
    """… whose audio begins here."""


class Segmenter:
    """One session's way from audio to utterances.

    The caller's duty: run speech detection over the frames that ``append`` and ``finish`` return
    and hand the probabilities to ``take`` before the next call, when there are any.
    """

    def __init__(
        self,
        config: EndpointerConfig,
        *,
        file_boundaries_matter: bool,
        resume_point: ResumePoint = NEW_SESSION,
    ) -> None:
        self.timeline = Timeline(resume_point.first_sample, resume_point.next_chunk_index)
        self._endpointer = Endpointer(
            config,
            first_sample=self.timeline.framed_samples,
            heard_samples=resume_point.heard_samples,
        )
        self._file_boundaries_matter = file_boundaries_matter
        self._file_boundaries: list[int] = []
        self._frames_seen = self.timeline.framed_samples // FRAME_SAMPLES
        self._over = False

    @property
    def waits_at_file_boundary(self) -> bool:
        """The audio so far ends with a file that ended in speech."""
        return bool(self._file_boundaries)

    def append(
        self,
        tail: bytes,
        pcm: bytes,
        *,
        chunk_index: int,
        starts: bool,
        ends: bool,
        clean_start: bool = False,
    ) -> bytes:
        """Add a chunk's audio (see ``gateway.audio.audio_input.Decoded``); returns frames for
        detection."""
        self.timeline.append(tail)
        if starts and self._file_boundaries_matter:
            self._add_file_boundary()
        self.timeline.begin_chunk(chunk_index, clean_start=clean_start)
        self.timeline.append(pcm)
        self.timeline.end_chunk(chunk_index)
        if ends and self._file_boundaries_matter:
            self._add_file_boundary()
        return self.timeline.take_frames()

    def finish(self, tail: bytes) -> bytes:
        """No more audio; returns the last frames, the very last padded with silence."""
        self.timeline.append(tail)
        self._over = True
        self._file_boundaries.clear()
        return self.timeline.take_frames() + self.timeline.take_last_frame()

    def take(self, probabilities: Sequence[float]) -> list[CutUtterance]:
        """Utterances complete by now. Call it with no probabilities too, when there were no
        frames: a file boundary may close an utterance all the same."""
        utterances: list[Utterance] = []
        place = 0
        waiting: list[int] = []
        for file_boundary in self._file_boundaries:
            ahead = min(
                max(0, file_boundary // FRAME_SAMPLES - self._frames_seen), len(probabilities)
            )
            utterances += self._push(probabilities[place : place + ahead])
            place += ahead
            if self._endpointer.trailing_silence_ms >= FILE_BOUNDARY_SILENCE_MS:
                utterances += self._endpointer.end_in_silence()
            elif file_boundary == self.timeline.total_samples:
                waiting.append(file_boundary)
        self._file_boundaries = waiting
        utterances += self._push(probabilities[place:])
        if self._over:
            utterances += self._endpointer.boundary(self.timeline.total_samples)
        return self._cut(utterances)

    def close_file_boundary(self) -> list[CutUtterance]:
        """Nothing followed the file that ended in speech: its utterance ends there."""
        self._file_boundaries.clear()
        return self._cut(self._endpointer.boundary(self.timeline.total_samples))

    def whole_chunk(self, start_sample: int, chunk_index: int) -> CutUtterance:
        """Mode chunk: everything since ``start_sample`` is one utterance, silent or not."""
        end_sample = self.timeline.total_samples
        pcm = self.timeline.cut(start_sample, end_sample)
        resume_sample, resume_chunk_index = self.timeline.clean_start_before(start_sample)
        self.timeline.take_frames()
        self.timeline.forget_before(end_sample)
        return CutUtterance(
            start_ms=samples_to_ms(start_sample),
            end_ms=samples_to_ms(end_sample),
            last_chunk_index=chunk_index,
            pcm=pcm,
            resume_chunk_index=resume_chunk_index,
            resume_sample=resume_sample,
        )

    def open_utterance(self) -> CutUtterance | None:
        """The utterance being spoken, as far as it goes: what a partial recognises."""
        start_sample = self._endpointer.speech_start_sample
        if start_sample is None:
            return None
        end_sample = self.timeline.total_samples
        return self._as_cut(start_sample, end_sample)

    def _add_file_boundary(self) -> None:
        sample = self.timeline.total_samples
        if sample > 0 and sample not in self._file_boundaries:
            self._file_boundaries.append(sample)

    def _push(self, probabilities: Sequence[float]) -> list[Utterance]:
        self._frames_seen += len(probabilities)
        return self._endpointer.push(probabilities) if probabilities else []

    def _cut(self, utterances: list[Utterance]) -> list[CutUtterance]:
        total = self.timeline.total_samples
        cut = [self._as_cut(u.start_sample, min(u.end_sample, total)) for u in utterances]
        self.timeline.forget_before(self._endpointer.safe_to_forget_sample)
        return cut

    def _as_cut(self, start_sample: int, end_sample: int) -> CutUtterance:
        warm_up = max(0, end_sample - WARM_UP_SAMPLES)
        resume_sample, resume_chunk_index = self.timeline.clean_start_before(warm_up)
        return CutUtterance(
            start_ms=samples_to_ms(start_sample),
            end_ms=samples_to_ms(end_sample),
            last_chunk_index=self.timeline.chunk_index_at(end_sample),
            pcm=self.timeline.cut(start_sample, end_sample),
            resume_chunk_index=resume_chunk_index,
            resume_sample=resume_sample,
        )
