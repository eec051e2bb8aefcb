"""One WebSocket connection: feeds its session and performs the session's actions.

Three tasks of one connection: reading (which also awaits decoding and speech detection, so that a
busy gateway leaves bytes in the socket), writing, and the hub's ticks and results, which only ever
call ``handle``. The session outlives the connection until its texts are complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Protocol

import structlog
from prometheus_client import Counter
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway import events as e
from gateway.audio import AudioError, AudioInput
from gateway.dialects import native
from gateway.life_cycle import State
from gateway.session import Session
from gateway.vad import VadEngine, VadOverloadedError, VadStream
from wire.messages import Cancel, Failure, Job, Record, Result

ANSWERS_QUEUED_MAX = 1_000
"""Answers waiting for a client that doesn't read; then the connection is closed with 1013."""
SEND_TIMEOUT_S = 30.0
"""One answer's time to leave; then likewise."""
BAD_MESSAGES_IN_A_ROW_MAX = 3
START_TIMEOUT_S = 30.0
"""From the upgrade to ``start``; then the connection is closed with 1008."""
VAD_RETRY_S = 0.05
CLOSE_NORMAL = 1000
CLOSE_POLICY = 1008
CLOSE_TOO_BIG = 1009
CLOSE_INTERNAL_ERROR = 1011
CLOSE_TRY_LATER = 1013

PROBLEMS = Counter("asr_gateway_problems", "Error answers to clients", ["code"])
SLOW_CLIENTS = Counter("asr_gateway_slow_clients", "Clients closed because they did not read")
FAILED_SESSIONS = Counter("asr_gateway_failed_sessions", "Sessions ended by a bug of ours")
VAD_WAITS = Counter("asr_gateway_vad_waits", "Speech detection was full, a client had to wait")
AUDIO_SECONDS = Counter("asr_gateway_audio_seconds", "Seconds of audio received")


class Services(Protocol):
    """What a connection needs of the gateway around it (``gateway.hub.Hub``)."""

    vad: VadEngine

    @property
    def chunk_bytes_max(self) -> int: ...
    def submit_job(self, job: Job) -> None: ...
    def submit_record(self, record: Record) -> None: ...
    def keep_result(self, result: Result) -> None: ...
    def cancel(self, cancel: Cancel) -> None: ...
    def new_audio(self, start: e.Start) -> AudioInput: ...
    async def claim(self, connection: Connection, start: e.Start) -> e.Problem | None: ...
    def release(self, connection: Connection) -> None: ...


class Connection:
    """``run`` serves one accepted WebSocket until its session's texts are complete."""

    def __init__(self, websocket: WebSocket, session: Session, services: Services) -> None:
        self.session = session
        self._websocket = websocket
        self._services = services
        self._audio: AudioInput | None = None
        self._vad = VadStream()
        self._audio_actions: deque[e.Action] = deque()
        self._outgoing: asyncio.Queue[str | e.Close | None] = asyncio.Queue(ANSWERS_QUEUED_MAX)
        self._changed = asyncio.Event()
        self._gone = False
        self._audio_ms = 0
        self._log = structlog.get_logger()

    async def run(self) -> None:
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
            await self._await_texts()
        except Exception:
            self.fail()
        finally:
            self._outgoing_put(None)
            # The writer ends after the last answer; a client that doesn't read can't hold it.
            await asyncio.wait([writer], timeout=SEND_TIMEOUT_S)
            writer.cancel()
            if self._audio is not None:
                await self._audio.close()
            self._services.release(self)

    def handle(self, event: e.Event) -> None:
        """Feed the session and perform what needs no waiting; the rest is for ``run``."""
        for action in self.session.handle(event, time.monotonic()):
            self._perform(action)
        self._changed.set()

    def fail(self) -> None:
        """Our own bug in this session: it ends, with 1011, and no other is touched."""
        FAILED_SESSIONS.inc()
        self._log.exception("session_failed", session_id=self.session.session_id)
        self.session.state = State.DONE
        self._close(CLOSE_INTERNAL_ERROR, "internal error")
        self._changed.set()

    # -------------------------------------------------------------------------------------- reading

    async def _read(self) -> None:
        bad_in_a_row = 0
        deadline = START_TIMEOUT_S
        while not self._gone and self.session.state in (State.NEW, State.ACTIVE):
            try:
                async with asyncio.timeout(deadline if self.session.state is State.NEW else None):
                    event = await self._next_event()
            except TimeoutError:
                self._close(CLOSE_POLICY, "no start in time")
                break
            except WebSocketDisconnect:
                break
            except native.MessageError as error:
                bad_in_a_row += 1
                self._answer(
                    e.Problem(code=error.code, message=str(error), chunk_index=error.chunk_index)
                )
                if bad_in_a_row >= BAD_MESSAGES_IN_A_ROW_MAX:
                    self._close(CLOSE_POLICY, "too many bad messages")
                    break
                continue
            bad_in_a_row = 0
            if isinstance(event, e.Chunk) and len(event.data) > self._services.chunk_bytes_max:
                self._close(CLOSE_TOO_BIG, "chunk too large")
                break
            await self._take(event)
        if self.session.state in (State.NEW, State.ACTIVE):
            self._gone = True
            self.handle(e.Disconnected())
            await self._do_audio()

    async def _next_event(self) -> e.Start | e.Chunk | e.Finish:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        payload = message.get("text")
        return native.parse(payload if payload is not None else message["bytes"])

    async def _take(self, event: e.Start | e.Chunk | e.Finish) -> None:
        if isinstance(event, e.Start) and self.session.state is State.NEW:
            refused = await self._services.claim(self, event)
            if refused is not None:
                self._answer(refused)
                return
            self._audio = self._services.new_audio(event)
        self.handle(event)
        await self._do_audio()
        while not self.session.wants_audio and not self._gone:
            self._changed.clear()
            await self._changed.wait()

    async def _do_audio(self) -> None:
        """Perform the session's audio actions, each answered by its event, until none is left."""
        while self._audio_actions:
            self.handle(await self._audio_event(self._audio_actions.popleft()))

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

    async def _await_texts(self) -> None:
        """Until every result is told, noticing meanwhile when the client goes away."""
        leaving = asyncio.create_task(self._watch_for_leaving())
        try:
            while self.session.state is not State.DONE:
                self._changed.clear()
                await self._changed.wait()
        finally:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        self._close(CLOSE_NORMAL, "finished")

    async def _watch_for_leaving(self) -> None:
        while not self._gone:
            try:
                event = await self._next_event()
            except WebSocketDisconnect:
                self._gone = True
                self.handle(e.Disconnected())
            except native.MessageError as error:
                self._answer(e.Problem(code=error.code, message=str(error)))
            else:
                self.handle(event)

    # -------------------------------------------------------------------------------------- actions

    def _perform(self, action: e.Action) -> None:
        if isinstance(action, e.DecodeChunk | e.FinishAudio | e.DetectSpeech):
            self._audio_actions.append(action)
        elif isinstance(action, e.SubmitJob):
            self._services.submit_job(action.job)
        elif isinstance(action, e.SubmitRecord):
            self._services.submit_record(action.record)
        elif isinstance(action, e.KeepResult):
            self._services.keep_result(action.result)
        elif isinstance(action, e.CancelJobs):
            self._services.cancel(Cancel(session_id=action.session_id))
        elif isinstance(action, e.Close):
            self._close(action.code, action.reason)
        else:
            self._answer(action)

    def _answer(self, answer: e.Answer) -> None:
        if isinstance(answer, e.Problem):
            PROBLEMS.labels(answer.code).inc()
        self._outgoing_put(native.encode(answer))

    def _close(self, code: int, reason: str) -> None:
        self._outgoing_put(e.Close(code=code, reason=reason))

    # -------------------------------------------------------------------------------------- writing

    def _outgoing_put(self, item: str | e.Close | None) -> None:
        if self._gone and item is not None:
            return
        try:
            self._outgoing.put_nowait(item)
        except asyncio.QueueFull:
            self._drop_slow_client()

    def _drop_slow_client(self) -> None:
        if not self._gone:
            SLOW_CLIENTS.inc()
            self._log.warning("slow_client_closed", session_id=self.session.session_id)
        while not self._outgoing.empty():
            self._outgoing.get_nowait()
        self._outgoing.put_nowait(e.Close(code=CLOSE_TRY_LATER, reason="answers are not read"))
        self._outgoing.put_nowait(None)

    async def _write(self) -> None:
        while (item := await self._outgoing.get()) is not None:
            # The client may be gone at any moment; reading tells the session so.
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                try:
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        await self._send(item)
                except TimeoutError:
                    self._drop_slow_client()

    async def _send(self, item: str | e.Close) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        if isinstance(item, e.Close):
            await self._websocket.close(item.code, item.reason)
        else:
            await self._websocket.send_text(item)


def _failure(error: AudioError | None) -> Failure | None:
    return None if error is None else Failure(code=error.code, message=str(error))
