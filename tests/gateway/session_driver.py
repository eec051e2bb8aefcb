"""Runs a session core without any I/O: chunks are PCM, and samples other than zero are speech."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from msgspec import structs

from gateway.audio.timeline import FRAME_SAMPLES, AudioDecoded, Notice
from gateway.session import events as e
from gateway.session.core import Session
from gateway.session.endpointer import EndpointerConfig, Endpointing
from gateway.session.limits import SessionLimits
from wire.messages import Cancel, Failure, Job, Record, Result, StoredKey

LIMITS = SessionLimits(segment_deadline_ms=60_000, resume_wait_s=60.0, speaker_similarity_min=0.4)
ENDPOINTER = EndpointerConfig(endpoint_silence_ms=600)
_FRAME_BYTES = FRAME_SAMPLES * 2
SILENCE_MS = b"\0\0" * 16
SPEECH_MS = b"\1\1" * 16


def speech(duration_ms: int, level: int = 1) -> bytes:
    return bytes([level, level]) * 16 * duration_ms


def silence(duration_ms: int) -> bytes:
    return SILENCE_MS * duration_ms


def detect(frames: bytes) -> tuple[float, ...]:
    assert len(frames) % _FRAME_BYTES == 0
    at = range(0, len(frames), _FRAME_BYTES)
    return tuple(0.9 if any(frames[n : n + _FRAME_BYTES]) else 0.0 for n in at)


class SessionDriver:
    """Feeds one session, decodes and detects speech for it, and collects its actions."""

    def __init__(self, **limits: int | float) -> None:
        self.session = Session(
            replace(LIMITS, **limits),  # type: ignore[arg-type]
            ENDPOINTER,
            resume_token="token",
            client="127.0.0.1",
            wall_offset_ms=1_700_000_000_000,
        )
        self.now_s = 0.0
        self.answers: list[e.Answer] = []
        self.jobs: list[Job] = []
        self.records: list[Record] = []
        self.kept: list[Result] = []
        self.counts: list[e.Count] = []
        self.others: list[e.Action] = []
        self.container_starts: set[int] = set()
        """Chunks before which a container ended."""
        self.container_ends: set[int] = set()
        self.whole_files: set[int] = set()
        """Chunks that hold one whole file."""
        self.clean_starts: set[int] | None = None
        """Chunks at which decoding can restart; None: all."""
        self.failing: set[int] = set()
        self.audio_before_fault = b""
        self.was_noise = False
        self.notices: tuple[Notice, ...] = ()
        """Of each chunk."""

    def feed(self, event: e.Event) -> list[e.Answer]:
        """Handle ``event`` and the events that follow from it. Returns the new answers."""
        before = len(self.answers)
        self._handle(event)
        if isinstance(event, e.Chunk) and self.session.busy:
            self._handle(self._decoded(event.data))
            self._detect_speech()
        return self.answers[before:]

    def _handle(self, event: e.Event) -> None:
        for action in self.session.handle(event, self.now_s):
            if isinstance(action, e.FlushDecoder):
                self._handle(AudioDecoded(tail=b""))
                self._detect_speech()
            elif isinstance(action, Job):
                self.jobs.append(action)
            elif isinstance(action, Record):
                self.records.append(action)
            elif isinstance(action, e.KeepResult):
                self.kept.append(action.result)
            elif isinstance(action, e.Count):
                self.counts.append(action)
            elif isinstance(action, Cancel | e.Close | e.ObserveFinish):
                self.others.append(action)
            else:
                self.answers.append(action)

    def _decoded(self, data: bytes) -> e.Event:
        index = self.session.chunk_count - 1
        if index in self.failing:
            return e.AudioFailed(
                code="bad_audio",
                message="no audio",
                pcm=self.audio_before_fault,
                was_noise=self.was_noise,
            )
        return AudioDecoded(
            tail=b"",
            pcm=data,
            begins_container=index in self.whole_files,
            starts_container=index in self.container_starts or 0 < index in self.whole_files,
            ends_container=index in self.container_ends | self.whole_files,
            clean_start=self.clean_starts is None or index in self.clean_starts,
            notices=self.notices,
        )

    def _detect_speech(self) -> None:
        self._handle(e.SpeechProbabilities(probabilities=detect(self.session.take_frames())))

    # --------------------------------------------------------------------------------- shorthands

    def start(
        self,
        mode: e.Mode = "auto",
        *,
        partials: bool = False,
        speakers: bool = False,
        result_per_file: bool = False,
        encoded: bool = False,
        endpointing: Endpointing = Endpointing(),  # noqa: B008
        speech_events: bool = False,
        long_silence_ms: int | None = None,
    ) -> list[e.Answer]:
        return self.feed(
            e.Start(
                session_id="s",
                user_id="u",
                mode=mode,
                sample_rate_hz=16_000,
                language="",
                hotwords=(),
                partials=partials,
                speakers=speakers,
                result_per_file=result_per_file,
                encoded=encoded,
                resume_token=None,
                endpointing=endpointing,
                speech_events=speech_events,
                long_silence_ms=long_silence_ms,
            )
        )

    def chunk(self, data: bytes, index: int | None = None) -> list[e.Answer]:
        session_id = None if index is None else "s"
        return self.feed(e.Chunk(data=data, chunk_index=index, session_id=session_id))

    def finish(self) -> list[e.Answer]:
        return self.feed(e.Finish(session_id="s"))

    def tick(self, now_s: float) -> list[e.Answer]:
        self.now_s = now_s
        return self.feed(e.Tick())

    def recognise(self, job: Job, text: str, embedding: bytes = b"") -> list[e.Answer]:
        result = structs.replace(result_of(job, text), embedding=embedding)
        return self.feed(result)

    def store_all(self) -> list[e.Answer]:
        keys = [_key("record", record.record_seq) for record in self.records]
        keys += [_key("result", result.seq) for result in self.kept]
        return self.feed(e.KeysStored(keys=tuple(keys)))


def _key(kind: str, seq: int) -> StoredKey:
    return StoredKey(session_id="s", kind=kind, seq=seq)  # type: ignore[arg-type]


def result_of(job: Job, text: str | None, error: Failure | None = None) -> Result:
    return job.result(text=text, error=error, worker_id="w", attempt=1, queue_ms=2, infer_ms=3)


def texts(answers: Iterable[e.Answer]) -> list[str]:
    return [answer.text for answer in answers if isinstance(answer, e.SegmentText)]
