"""SANS-IO: a session's chunks on their way to utterances, one at a time: decoded, heard, cut."""

from __future__ import annotations

from collections.abc import Callable

from gateway.audio.timeline import samples_to_ms
from gateway.session import events as e
from gateway.session.endpointer import EndpointerConfig
from gateway.session.resume import ResumePoint
from gateway.session.segmenter import CutUtterance, Segmenter
from gateway.session.states import SessionLimits
from wire.records import ChunkDetail

Output = CutUtterance | ChunkDetail | e.Problem | e.DecodeChunk | e.FinishAudio | e.DetectSpeech
"""What comes out: utterances to be recognised, a chunk's details to be stored, a problem to be
told, and audio actions, each to be answered by its event."""


class FrontEnd:
    """``take`` a chunk, or ``finish``, while not ``busy``; hand in what the audio actions give."""

    def __init__(
        self,
        start: e.Start,
        limits: SessionLimits,
        endpointer: EndpointerConfig,
        wall_ms: Callable[[], int],
        resume_point: ResumePoint,
    ) -> None:
        self.busy = False
        """An audio action is to be answered."""
        self._limits = limits
        self._wall_ms = wall_ms
        self._mode = start.mode
        self._segmenter = Segmenter(
            endpointer, file_boundaries_matter=start.mode == "auto", resume_point=resume_point
        )
        self._heard_chunk_index = resume_point.heard_chunk_index
        self._decoding = e.DecodeChunk(chunk_index=0, data=b"", whole=False)
        self._finishing = False
        self._audio_over = False
        self._file_boundary_wait_until_s: float | None = None
        self._file_boundary_wait_s = 0.0
        self._chunk_audio_ms = 0

    @property
    def duration_ms(self) -> int:
        return samples_to_ms(self._segmenter.timeline.total_samples)

    @property
    def over(self) -> bool:
        """The last utterance is out."""
        return self._audio_over and not self.busy

    @property
    def open_utterance(self) -> CutUtterance | None:
        """The utterance being spoken, as far as it goes."""
        return self._segmenter.open_utterance()

    def take(self, chunk_index: int, data: bytes) -> list[Output]:
        """The next chunk."""
        assert not self.busy and not self._finishing
        self._file_boundary_wait_until_s = None
        self.busy = True
        self._decoding = e.DecodeChunk(
            chunk_index=chunk_index, data=data, whole=self._mode == "chunk"
        )
        return [self._decoding]

    def finish(self) -> list[Output]:
        """No more chunks."""
        assert not self.busy and not self._finishing
        self.busy = self._finishing = True
        return [e.FinishAudio()]

    def decoded(self, event: e.AudioDecoded, now_s: float) -> list[Output]:
        timeline = self._segmenter.timeline
        start_sample = timeline.total_samples + len(event.tail) // 2
        frames = self._segmenter.append(
            event.tail,
            event.pcm,
            chunk_index=event.chunk_index,
            starts=event.starts_container,
            ends=event.ends_container,
            clean_start=event.clean_start,
        )
        self._chunk_audio_ms = samples_to_ms(timeline.total_samples - start_sample)
        outputs: list[Output] = [self._detail(samples_to_ms(start_sample))]
        if event.tail_failure is not None:
            failure = event.tail_failure
            outputs.append(e.Problem(code=failure.code, message=failure.message))
        if self._mode == "chunk":
            return [*outputs, *self._whole_chunk(start_sample)]
        if frames:
            return [*outputs, e.DetectSpeech(pcm=frames)]
        return [*outputs, *self.heard(e.SpeechProbabilities(probabilities=()), now_s)]

    def failed(self, event: e.AudioFailed, now_s: float) -> list[Output]:
        problem = e.Problem(code=event.code, message=event.message, chunk_index=event.chunk_index)
        if self._finishing:
            return [problem, *self.finished(e.AudioFinished(tail=event.pcm), now_s)]
        if event.pcm and event.chunk_index is not None:
            heard = e.AudioDecoded(
                chunk_index=event.chunk_index,
                tail=b"",
                pcm=event.pcm,
                starts_container=False,
                ends_container=False,
            )
            return [problem, *self.decoded(heard, now_s)]
        self._chunk_audio_ms = 0
        self.busy = False
        return [problem, self._detail(self.duration_ms)]

    def finished(self, event: e.AudioFinished, now_s: float) -> list[Output]:
        self._audio_over = True
        start_sample = self._segmenter.timeline.total_samples
        frames = self._segmenter.finish(event.tail)
        if self._mode == "chunk":
            self.busy = False
            index = self._decoding.chunk_index
            return [self._segmenter.whole_chunk(start_sample, index)] if event.tail else []
        if frames:
            return [e.DetectSpeech(pcm=frames)]
        return self.heard(e.SpeechProbabilities(probabilities=()), now_s)

    def heard(self, event: e.SpeechProbabilities, now_s: float) -> list[Output]:
        utterances = self._segmenter.take(event.probabilities)
        self.busy = False
        if self._segmenter.waits_at_file_boundary and not self._audio_over:
            wait_s = self._chunk_audio_ms / 1000 + self._limits.file_boundary_wait_extra_s
            self._file_boundary_wait_s = min(wait_s, self._limits.file_boundary_wait_s_max)
            self._file_boundary_wait_until_s = now_s + self._file_boundary_wait_s
        return list(utterances)

    def tick(self, now_s: float, *, listens: bool) -> list[Output]:
        """Utterances that no further file has joined in time. Time does not count while nobody
        ``listens``, because the client is away, or its next file is left in the socket."""
        if self._file_boundary_wait_until_s is None:
            return []
        if not listens:
            self._file_boundary_wait_until_s = now_s + self._file_boundary_wait_s
        if now_s < self._file_boundary_wait_until_s:
            return []
        self._file_boundary_wait_until_s = None
        return [] if self.busy or self._finishing else list(self._segmenter.close_file_boundary())

    def _detail(self, offset_ms: int) -> ChunkDetail:
        return ChunkDetail(
            chunk_index=self._decoding.chunk_index,
            byte_count=len(self._decoding.data),
            offset_ms=offset_ms,
            duration_ms=self._chunk_audio_ms,
            received_at_ms=self._wall_ms(),
        )

    def _whole_chunk(self, start_sample: int) -> list[Output]:
        self.busy = False
        index = self._decoding.chunk_index
        utterance = self._segmenter.whole_chunk(start_sample, index)
        if index <= self._heard_chunk_index:
            return []  # Decoded again only for what follows it.
        limit_ms = self._limits.chunk_utterance_ms_max
        if utterance.end_ms - utterance.start_ms > limit_ms:
            message = f"a chunk in mode chunk holds at most {limit_ms} ms"
            return [e.Problem(code="audio_too_long", message=message, chunk_index=index)]
        return [utterance]
