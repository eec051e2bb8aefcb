"""One session in this process: its core, and what the core needs that outlives a connection, which
is the decoder, the place in speech detection, and whichever connection it has at the moment.

Performs the session's actions and decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

import structlog

from gateway.audio.audio_input import AudioError, AudioInput
from gateway.audio.vad import VadEngine, VadOverloadedError, VadStream
from gateway.session import events as e
from gateway.session.core import Session
from gateway.session.states import State
from gateway.session.traces import SessionTraces
from gateway.telemetry.metrics import (
    AUDIO_SECONDS,
    FAILED_SESSIONS,
    FINISH_SECONDS,
    PROBLEM_CODES,
    SEGMENT_SECONDS,
    VAD_WAITS,
)
from runtime import tracing
from wire.messages import Cancel, Failure, Job, Record, Result

VAD_RETRY_S = 0.05
CLOSE_POLICY = 1008
CLOSE_INTERNAL_ERROR = 1011
CLOSE_RESTART = 1012


class Services(Protocol):
    """What a session needs of the gateway around it (``gateway.server.Server``)."""

    vad: VadEngine

    def submit_job(self, job: Job) -> None: ...
    def submit_record(self, record: Record) -> None: ...
    def keep_result(self, result: Result, *, contested: bool) -> None: ...
    def cancel(self, cancel: Cancel) -> None: ...
    def new_audio(self, start: e.Start, first_sample: int) -> AudioInput: ...
    def release(self, runner: SessionRunner) -> None: ...


class Attachment(Protocol):
    """The connection of a session's client."""

    def answer(self, answer: e.Answer) -> None: ...
    def close(self, code: int, reason: str) -> None:
        """Close once everything before is sent, and take nothing more from the client."""

    def displace(self, code: int, reason: str) -> None:
        """Likewise, but at once: what is not sent yet is for the connection that follows."""


class SessionRunner:
    """Whoever feeds a client's event awaits ``settled`` before and ``do_audio`` after it. Events
    that come from elsewhere (bus, clock) go to ``feed`` at any time."""

    def __init__(self, session: Session, services: Services) -> None:
        self.session = session
        self._services = services
        self._connection: Attachment | None = None
        self._audio: AudioInput | None = None
        self._vad = VadStream()
        self._audio_actions: deque[e.Action] = deque()
        self._performing = False
        self._changed = asyncio.Event()
        self._audio_ms = 0
        self._finish_s: float | None = None
        self._traces = SessionTraces(session.lane) if tracing.on() else None
        self._released = False
        self._failed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger()

    # ------------------------------------------------------------------------------ its connections

    @property
    def attached(self) -> bool:
        return self._connection is not None

    def open(self, connection: Attachment) -> None:
        """The new session's first connection."""
        self._connection = connection

    def begin(self, start: e.Start) -> None:
        """The session may start: ``start`` is fed after that."""
        self._audio = self._services.new_audio(start, self.session.resume_point.first_sample)
        self._audio_ms = self.session.duration_ms
        self._log.info(
            "session_started",
            session_id=start.session_id,
            mode=start.mode,
            lane=self.session.lane,
            generation=self.session.resume_point.generation,
        )

    def attach(self, connection: Attachment, next_segment_index: int | None) -> None:
        """The client is back. A connection that it still has is closed with 1008."""
        self._log.info("session_resumed", session_id=self.session.session_id)
        old, self._connection = self._connection, connection
        if old is not None:
            old.displace(CLOSE_POLICY, "resumed elsewhere")
        self.handle(e.Attached(next_segment_index=next_segment_index))

    def detach(self, connection: Attachment) -> None:
        """``connection`` is gone. Nothing happens if the session has another one by now."""
        if self._connection is connection:
            self._connection = None
            self.feed(e.Disconnected())

    def note_written(self, connection: Attachment, segment_index: int) -> None:
        if self._connection is connection:
            self.session.delivery.note_written(segment_index)

    # --------------------------------------------------------------------------------------- events

    def handle(self, event: e.Event) -> None:
        """Feed the session and perform what needs no waiting; the rest is for ``do_audio``."""
        now_s = time.monotonic()
        if isinstance(event, e.Finish) and self.session.state is State.ACTIVE:
            self._finish_s = now_s
        if self._traces is not None:
            self._traces.note_event(event, now_s)
        for action in self.session.handle(event, now_s):
            self._perform(action)
        self._changed.set()
        if self.session.state is State.DONE:
            self._release()

    def feed(self, event: e.Event) -> None:
        """``handle`` and see to the audio, for events that no connection awaits. One session's bug
        must not stop the link or the clock of all others."""
        if self._failed:
            return
        try:
            self.handle(event)
        except Exception:
            self.fail()
        if self._audio_actions and not self._performing:
            self._spawn_audio()

    def fail(self) -> None:
        """Our own bug in this session: it ends, with 1011, and no other is touched."""
        self._failed = True
        FAILED_SESSIONS.inc()
        self._log.exception("session_failed", session_id=self.session.session_id)
        self.session.end_here()
        if self._connection is not None:
            self._connection.close(CLOSE_INTERNAL_ERROR, "internal error")
        self._changed.set()
        self._release()

    def interrupt(self) -> None:
        """This gateway stops: the client is told to go elsewhere, and what it has said is kept."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(CLOSE_RESTART, "service restart")
        self.feed(e.Disconnected())
        self.feed(e.Interrupted())

    def let_go(self) -> None:
        """The session goes on at another gateway, and not a word more of it is told or stored
        from here. A client that is still here may not know: a claim that was delayed takes effect
        after its client has come back to us. It is to come back once more, to wherever it is."""
        self.session.end_here()
        if self._connection is not None:
            self._connection.displace(CLOSE_RESTART, "resumed elsewhere")
        self._changed.set()
        self._release()

    async def settled(self) -> None:
        """Until the session has done with the audio it has, and wants more."""
        while self._performing or self._audio_actions or not self.session.wants_audio:
            if self.session.state is State.DONE:
                return
            self._changed.clear()
            await self._changed.wait()

    async def over(self) -> None:
        """Until the session has told its last."""
        while self.session.state is not State.DONE:
            self._changed.clear()
            await self._changed.wait()

    # ---------------------------------------------------------------------------------------- audio

    async def do_audio(self) -> None:
        """Perform the session's audio actions, each answered by its event, until none is left."""
        if self._performing:
            return
        self._performing = True
        try:
            while self._audio_actions:
                self.handle(await self._audio_event(self._audio_actions.popleft()))
        finally:
            self._performing = False
            self._changed.set()
        if self._released:
            await self._close_audio()

    def _spawn_audio(self) -> None:
        async def perform() -> None:
            structlog.contextvars.bind_contextvars(session_id=self.session.session_id)
            try:
                await self.do_audio()
            except Exception:
                self.fail()

        task = asyncio.create_task(perform())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _audio_event(self, action: e.Action) -> e.Event:
        assert self._audio is not None
        index = action.chunk_index if isinstance(action, e.DecodeChunk) else None
        try:
            if isinstance(action, e.DecodeChunk):
                decoded = await self._audio.feed(action.data, whole=action.whole)
                self._count_audio()
                return e.AudioDecoded(
                    chunk_index=action.chunk_index,
                    tail=decoded.tail,
                    pcm=decoded.pcm,
                    starts_container=decoded.starts_container,
                    ends_container=decoded.ends_container,
                    clean_start=decoded.clean_start,
                    tail_failure=_failure(decoded.tail_error),
                )
            if isinstance(action, e.FinishAudio):
                return e.AudioFinished(tail=await self._audio.finish())
            assert isinstance(action, e.DetectSpeech)
            return await self._detect_speech(action.pcm)
        except AudioError as error:
            return e.AudioFailed(
                chunk_index=index, code=error.code, message=str(error), pcm=error.pcm
            )

    async def _detect_speech(self, pcm: bytes) -> e.Event:
        while True:
            try:
                probabilities = await self._services.vad.probabilities(self._vad, pcm)
            except VadOverloadedError:
                # Leaving this client's bytes in its socket is the answer.
                VAD_WAITS.inc()
                await asyncio.sleep(VAD_RETRY_S)
                continue
            return e.SpeechProbabilities(probabilities=tuple(probabilities))

    def _count_audio(self) -> None:
        duration_ms = self.session.duration_ms
        AUDIO_SECONDS.inc((duration_ms - self._audio_ms) / 1000)
        self._audio_ms = duration_ms

    async def _close_audio(self) -> None:
        if self._audio is not None:
            await self._audio.close()

    # -------------------------------------------------------------------------------------- actions

    def _perform(self, action: e.Action) -> None:
        if self._traces is not None:
            self._traces.note_action(action)
        if isinstance(action, e.DecodeChunk | e.FinishAudio | e.DetectSpeech):
            self._audio_actions.append(action)
        elif isinstance(action, e.SubmitJob):
            self._services.submit_job(action.job)
        elif isinstance(action, e.SubmitRecord):
            self._services.submit_record(action.record)
        elif isinstance(action, e.KeepResult):
            self._note_result(action)
            self._services.keep_result(action.result, contested=action.contested)
        elif isinstance(action, e.CancelJobs):
            self._services.cancel(Cancel(session_id=action.session_id))
        elif self._connection is None:
            assert isinstance(action, e.Close), "a session without a client tells nothing"
        elif isinstance(action, e.Close):
            self._connection.close(action.code, action.reason)
        else:
            if isinstance(action, e.Finished) and self._finish_s is not None:
                waited_s = time.monotonic() - self._finish_s
                FINISH_SECONDS.labels(self.session.lane).observe(waited_s)
                self._finish_s = None
            self._connection.answer(action)

    def _note_result(self, kept: e.KeepResult) -> None:
        SEGMENT_SECONDS.labels(self.session.lane).observe(kept.waited_s)
        result = kept.result
        if result.error is not None:
            self._log.warning(
                "segment_failed",
                session_id=result.session_id,
                segment_index=result.seq,
                code=result.error.code if result.error.code in PROBLEM_CODES else "other",
                worker_id=result.worker_id,
                attempt=result.attempt,
            )

    def _log_end(self) -> None:
        session = self.session
        if session.session_id:
            self._log.info(
                "session_ended",
                session_id=session.session_id,
                duration_ms=session.duration_ms,
                chunks=session.chunk_count,
                segments=session.segment_count,
            )

    def _release(self) -> None:
        """Once, when the session is over."""
        if self._released:
            return
        self._released = True
        self._log_end()
        self._audio_actions.clear()
        self._services.release(self)
        if not self._performing and self._audio is not None:
            self._spawn_audio()


def _failure(error: AudioError | None) -> Failure | None:
    return None if error is None else Failure(code=error.code, message=str(error))
