"""One session in this process: its core, its decoder, its state in speech detection, and its
current connection.

A chunk goes from its connection to the broker in one call of ``SessionRunner.take``:

1. ``Session.handle(Chunk)`` checks its index, and acknowledges it. The session is now ``busy``.
2. ``AudioInput.feed`` decodes it. ``Session.handle(AudioDecoded)`` appends the PCM to the timeline.
3. ``VadEngine.probabilities`` detects speech in ``Session.take_frames``.
4. ``Session.handle(SpeechProbabilities)`` cuts utterances. The action for each is its ``Job``,
   which is sent to the broker. The session takes the next chunk.

The runner performs the session's actions and decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, get_args

import structlog
from msgspec import structs
from websockets.frames import CloseCode

from gateway.audio.audio_input import AudioInput
from gateway.audio.file_ends import holds_whole_file
from gateway.audio.formats import AudioError
from gateway.audio.timeline import AudioDecoded
from gateway.audio.vad import VadEngine, VadOverloadedError, VadStream
from gateway.session import events as e
from gateway.session.core import Session
from gateway.session.limits import Traits
from gateway.session.models import ANY_MODEL
from gateway.session.states import State
from gateway.session.summary import SessionSummary
from gateway.session.traces import SessionTraces
from gateway.storage.callers import Caller
from gateway.telemetry.metrics import (
    ANSWERS_DISCARDED,
    CHUNK_SECONDS,
    EMBEDDINGS_DISCARDED,
    FAILED_SESSIONS,
    FINISH_SECONDS,
    PROBLEM_CODES,
    RESULTS_DISCARDED,
    SEGMENT_SECONDS,
    VAD_WAITS,
)
from runtime import tracing
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, Cancel, Failure, Job, Record, Result

VAD_RETRY_S = 0.05
PIECE_BYTES = 131_072
"""Bytes of a chunk that are decoded at once: about 4 s of PCM, some milliseconds of work."""

INTERNAL_ERROR = Failure(code="internal_error", message="an internal error")


class Services(Protocol):
    """The gateway around a session (``gateway.server.Server``)."""

    vad: VadEngine

    def send(self, message: Job | Cancel) -> None:
        """Send ``message`` to the broker, or drop it if its queue is full."""

    def submit_record(self, record: Record) -> None:
        """Send ``record`` until it is stored."""

    def keep_result(self, result: Result, *, contested: bool, waited_s: float) -> None:
        """Keep ``result`` until it is stored. Send a copy of it if its publication is lost, or at
        once if it is ``contested``. ``waited_s``: since its job was first sent."""

    def note_audio(self, caller: Caller, audio_s: float) -> None:
        """``caller`` has sent this much audio."""

    def refused_audio(self, caller: Caller) -> e.AudioRefused | None:
        """Return why ``caller`` may send no more audio, if so."""

    def new_audio(self, start: e.Start, first_sample: int) -> AudioInput:
        """Return the decoder of a session that begins at ``first_sample`` of its timeline."""

    def session_ended(self, runner: SessionRunner) -> None:
        """The session is over. If it finished, it still answers a client that resumes."""


class ClientConnection(Protocol):
    """The connection of a session's client."""

    def answer(self, answer: e.Answer) -> None: ...
    def close(self, code: int, reason: str) -> None:
        """Close after all answers are sent. Accept nothing more from the client."""

    def displace(self, code: int, reason: str) -> None:
        """Close at once. Answers not sent yet are for the next connection."""


class SessionRunner:
    """A connection awaits ``take`` for each event of its client. Events of the bus and the clock
    go to ``feed``, at any time."""

    def __init__(
        self, session: Session, services: Services, traits: Traits, caller: Caller
    ) -> None:
        self.session = session
        self.traits = traits
        self.summary = SessionSummary(traits.name)
        self.model = ANY_MODEL
        """The model of its utterances."""
        self._services = services
        self.caller = caller
        self._connection: ClientConnection | None = None
        self._audio: AudioInput | None = None
        self._vad = VadStream()
        self._decoding = False
        self._changed = asyncio.Event()
        self._traces = SessionTraces(session.lane) if tracing.on() else None
        self._ended = False
        self._failed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger()

    # ---------------------------------------------------------------------------------- connections

    @property
    def attached(self) -> bool:
        return self._connection is not None

    def open(self, connection: ClientConnection) -> None:
        """Attach the first connection of a session that has not started."""
        self._connection = connection

    def begin(self, start: e.Start) -> None:
        """Start the session; its id is reserved, and ``model`` is set."""
        start = structs.replace(start, model=self.model.name, abilities=self.model.abilities)
        self.summary.began_s = time.monotonic()
        self.summary.token_name = self.caller.token_name
        first_sample = self.session.resume_point.first_sample
        self._audio = self._services.new_audio(start, first_sample)
        self._log.info(
            "session_started",
            session_id=start.session_id,
            mode=start.mode,
            model=start.model,
            lane=self.session.lane,
            generation=self.session.resume_point.generation,
        )
        self.handle(start)

    def attach(self, connection: ClientConnection, next_segment_index: int | None) -> None:
        """The client has resumed. Its previous connection, if still open, is closed with 1008."""
        self._log.info("session_resumed", session_id=self.session.session_id)
        self.summary.resumes += 1
        previous, self._connection = self._connection, connection
        if previous is not None:
            previous.displace(CloseCode.POLICY_VIOLATION, "resumed elsewhere")
        self.handle(e.Attached(next_segment_index=next_segment_index))

    def detach(self, connection: ClientConnection) -> None:
        """``connection`` is closed. Does nothing if the session has another one."""
        if self._connection is connection:
            self._connection = None
            self.feed(e.Disconnected())

    def note_written(self, connection: ClientConnection, segment_index: int) -> None:
        if self._connection is connection:
            self.feed(e.SegmentWritten(segment_index=segment_index))

    # ------------------------------------------------------------------ from the client to the jobs

    async def take(
        self, connection: ClientConnection, event: e.ClientEvent, received_s: float | None = None
    ) -> None:
        """Take a client's event. A chunk goes all the way from here to its utterances' jobs.

        Waits while the previous chunk is being decoded, or too much audio awaits results, so that
        the caller reads nothing more from the client meanwhile. ``received_s``: when the chunk
        arrived, for the metrics.
        """
        if self.session.busy or not self.session.wants_audio:
            await self._wait(lambda: self.session.wants_audio and not self.session.busy)
        if self._connection is not connection:
            return  # Displaced or closed while it waited.
        if isinstance(event, e.Chunk) and self.session.state is State.ACTIVE:
            refused = self._services.refused_audio(self.caller)
            if refused is not None:
                self.handle(refused)
                return
        self.handle(event)
        if isinstance(event, e.Chunk):
            if received_s is not None:
                CHUNK_SECONDS.observe(time.monotonic() - received_s)
            if self.session.busy:
                await self._process_audio(event)

    async def _process_audio(self, chunk: e.Chunk | None) -> None:
        """Decode, append to the timeline, detect speech, cut utterances and submit them. None: the
        end of the audio."""
        self._decoding = True
        try:
            if chunk is None:
                await self._process_rest()
            else:
                await self._process_chunk(chunk.data)
        finally:
            self._decoding = False
        if self._ended:
            await self._close_audio()

    async def _process_chunk(self, data: bytes) -> None:
        """Process the chunk in pieces, so that a large one delays no other session, and its audio
        does not wait for results longer than that of many small ones."""
        start = self.session.start
        assert self._audio is not None and start is not None
        whole_file = start.result_per_file and holds_whole_file(data)
        for begin in range(0, max(1, len(data)), PIECE_BYTES):
            end = begin + PIECE_BYTES
            last = end >= len(data)
            feeding = self._audio.feed(
                data[begin:end],
                whole=start.mode == "chunk",
                continues=begin > 0,
                more=not last,
                ends=whole_file and last,
            )
            if not await self._process(feeding):
                return

    async def _process_rest(self) -> None:
        """Process the rest of the decoder's audio, one part after another: all the audio of a file
        whose index is at its end."""
        assert self._audio is not None
        more = not self.session.over
        while more:
            more = await self._process(self._audio.finish())

    async def _process(self, decoding: Awaitable[AudioDecoded]) -> bool:
        """Handle the decoded audio, detect speech in it, and handle that. Returns whether more of
        it follows, once the session wants it."""
        decoded: AudioDecoded | e.AudioFailed
        try:
            decoded = await decoding
        except AudioError as error:
            decoded = e.AudioFailed(
                code=error.code, message=str(error), pcm=error.pcm, was_noise=error.was_noise
            )
        else:
            self._note_audio(decoded)
        self.handle(decoded)
        frames = self.session.take_frames()
        probabilities = await self._detect_speech(frames) if frames else ()
        self.handle(e.SpeechProbabilities(probabilities=tuple(probabilities)))
        if isinstance(decoded, e.AudioFailed) or not decoded.more:
            return False
        await self._wait(lambda: self.session.wants_audio)
        return not self.session.over

    def _note_audio(self, decoded: AudioDecoded) -> None:
        session_id = self.session.session_id
        for notice in decoded.notices:
            self._log.info("audio_partly_used", session_id=session_id, **structs.asdict(notice))
        byte_count = len(decoded.tail) + len(decoded.pcm)
        audio_s = byte_count / (BYTES_PER_SAMPLE * SAMPLE_RATE_HZ)
        self._services.note_audio(self.caller, audio_s)

    async def _detect_speech(self, frames: bytes) -> list[float]:
        while True:
            try:
                return await self._services.vad.probabilities(self._vad, frames)
            except VadOverloadedError:
                # The client's bytes stay in its socket meanwhile.
                VAD_WAITS.inc()
                await asyncio.sleep(VAD_RETRY_S)

    # --------------------------------------------------------------------------------------- events

    def handle(self, event: e.Event) -> None:
        """Feed the session and perform its actions."""
        now_s = time.monotonic()
        if self._traces is not None:
            self._traces.note_event(event, now_s)
        for action in self.session.handle(event, now_s):
            if self._traces is not None:
                self._traces.note_action(action)
            self._perform(action)
        self._changed.set()
        if self.session.over:
            self._end_once()

    def feed(self, event: e.Event) -> None:
        """``handle`` an event that no connection awaits. A bug in one session must not stop the bus
        or the clock of all others."""
        if self._failed:
            return
        try:
            self.handle(event)
        except Exception:
            self.fail()

    def fail(self) -> None:
        """End the session after an internal error, with 1011. No other session is affected. Its
        client may resume it from what is stored; if its protocol cannot, the failure is stored."""
        self._failed = True
        FAILED_SESSIONS.inc()
        self._log.exception("session_failed", session_id=self.session.session_id)
        if self._connection is not None:
            self._connection.close(CloseCode.INTERNAL_ERROR, "internal error")
        self.summary.cause = "internal_error"
        self._release(None if self.traits.resumable else INTERNAL_ERROR)

    def give_up(self, failure: Failure) -> None:
        """End the session with this failure, which is stored."""
        self.summary.cause = "internal_error"
        self._release(failure)

    def interrupt(self) -> None:
        """The gateway is stopping: send the client to another one. Its audio is kept."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close(CloseCode.SERVICE_RESTART, "service restart")
        except Exception:
            self.fail()
        self.feed(e.Disconnected())
        self.feed(e.Interrupted())

    def hand_over(self) -> None:
        """The session continues at another gateway. Nothing more of it is sent or stored here.

        A delayed claim takes effect after the client has resumed here. It is closed with 1012 and
        resumes once more, wherever it arrives.
        """
        if self._connection is not None:
            self._connection.displace(CloseCode.SERVICE_RESTART, "resumed elsewhere")
        self.summary.cause = "handed_over"
        self._release()

    async def wait_over(self) -> None:
        """Wait for the session's last answer."""
        await self._wait(lambda: False)

    async def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait until ``ready``, or until the session is over."""
        while not (ready() or self.session.over):
            self._changed.clear()
            await self._changed.wait()

    def _release(self, failure: Failure | None = None) -> None:
        self._connection = None
        try:
            for action in self.session.handle(e.Released(failure=failure), time.monotonic()):
                self._perform(action)
        except Exception:  # After an internal error, its end may have one, too.
            self._log.exception("end_not_recorded", session_id=self.session.session_id)
        self._changed.set()
        self._end_once()

    def _end_once(self) -> None:
        """Log the end and free the decoder. Does nothing the second time."""
        if self._ended:
            return
        self._ended = True
        session = self.session
        if session.session_id:
            fields = self.summary.fields(session, time.monotonic())
            self._log.info("session_ended", session_id=session.session_id, **fields)
        self._services.session_ended(self)
        if self._audio is not None and not self._decoding:
            self._spawn(self._close_audio)

    async def _close_audio(self) -> None:
        assert self._audio is not None
        await self._audio.close()

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            structlog.contextvars.bind_contextvars(session_id=self.session.session_id)
            try:
                await work()
            except Exception:
                self.fail()

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -------------------------------------------------------------------------------------- actions

    def _perform(self, action: e.Action) -> None:
        perform = PERFORMERS.get(type(action))
        if perform is None:
            raise TypeError(f"no performer for {action!r}")
        perform(self, action)

    def _answer(self, answer: e.Answer) -> None:
        assert self._connection is not None, "an answer without a connection"
        self.summary.note_answer(answer)
        self._connection.answer(answer)

    def _close(self, action: e.Close) -> None:
        if self._connection is not None:
            self._connection.close(action.code, action.reason)

    def _submit_record(self, record: Record) -> None:
        self.summary.note_record(record)
        self._services.submit_record(record)

    def _keep_result(self, action: e.KeepResult) -> None:
        result = action.result
        self.summary.note_result(result, action.waited_s)
        SEGMENT_SECONDS.labels(self.session.lane).observe(action.waited_s)
        if result.error is not None:
            self._log.warning(
                "segment_failed",
                session_id=result.session_id,
                segment_index=result.seq,
                code=result.error.code if result.error.code in PROBLEM_CODES else "other",
                worker_id=result.worker_id,
                attempt=result.attempt,
            )
        self._services.keep_result(result, contested=action.contested, waited_s=action.waited_s)

    def _observe_finish(self, action: e.ObserveFinish) -> None:
        FINISH_SECONDS.labels(self.session.lane).observe(action.waited_s)


_DISCARDED = {
    "answer": ANSWERS_DISCARDED,
    "result": RESULTS_DISCARDED,
    "embedding": EMBEDDINGS_DISCARDED,
}
PERFORMERS: Mapping[type, Callable[[SessionRunner, Any], None]] = {
    **dict.fromkeys(get_args(e.Answer), SessionRunner._answer),
    e.Close: SessionRunner._close,
    e.FlushDecoder: lambda runner, _: runner._spawn(lambda: runner._process_audio(None)),
    Job: lambda runner, job: runner._services.send(job),
    Cancel: lambda runner, cancel: runner._services.send(cancel),
    Record: SessionRunner._submit_record,
    e.KeepResult: SessionRunner._keep_result,
    e.Count: lambda _, count: _DISCARDED[count.discarded].labels(count.reason).inc(),
    e.ObserveFinish: SessionRunner._observe_finish,
}
