"""One WebSocket connection: feeds its client's messages to its session, and sends the answers.

Reading waits for the session to take each message (``SessionRunner.take``), so that a busy gateway
leaves bytes in the socket. Answers are written at once while the client reads them, and queued
while it does not. The session outlives the connection; in some dialects a connection has one
session after another.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from msgspec import structs
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.frames import CloseCode

from gateway.admission.gate import ConnectionGate
from gateway.dialects.dialect import Dialect, Ignored, MessageError
from gateway.session import events as e
from gateway.session.registry import SessionRegistry
from gateway.session.runner import SessionRunner
from gateway.session.states import State
from gateway.settings import GatewaySettings
from gateway.telemetry.metrics import (
    ANSWERS_DISCARDED,
    CLOSED,
    INPUT_IGNORED,
    SLOW_CLIENTS,
    count_problem,
)

ANSWERS_QUEUED_MAX = 1_000
"""Answers that wait for a client to read; then the connection is closed with 1013."""
SEND_TIMEOUT_S = 30.0
"""Timeout for sending one queued answer; then 1013."""
BAD_MESSAGES_IN_A_ROW_MAX = 3
START_TIMEOUT_S = 30.0
"""Time from the upgrade to ``start``, or from the end of a session to the next ``start``; then the
connection is closed with 1008."""
NO_START = "no start in time"


WRITE_EXTENSION = "asr.websocket.write"
"""ASGI extension: a function that sends a text at once, or returns False if it would have to wait
(``gateway.web.uvicorn_protocols``). Without it every answer is queued."""


class Gateway(Protocol):
    """The gateway around a connection (``gateway.server.Server``)."""

    settings: GatewaySettings
    registry: SessionRegistry
    gate: ConnectionGate


class WebSocketConnection:
    """``run`` serves one accepted WebSocket until either side closes it."""

    def __init__(
        self,
        websocket: WebSocket,
        dialect: Dialect,
        gateway: Gateway,
        *,
        asked: str = "",
        admitted: str | None = None,
    ) -> None:
        """``asked``: the model that the address names, for sessions that name none. ``admitted``:
        the model that the gate has admitted; None: it did not know the model."""
        self._websocket = websocket
        self._asked = asked
        self._admitted = admitted
        self._try_later = False
        """The model of the session has no room."""
        self._gate = gateway.gate
        self._dialect = dialect
        self._registry = gateway.registry
        self._settings = gateway.settings
        self._runner = self._new_runner()
        extensions = websocket.scope.get("extensions") or {}
        self._write_at_once: Callable[[str], bool] = extensions.get(WRITE_EXTENSION, _never)
        self._queue: deque[_Answer | e.Close] = deque()
        self._writer: asyncio.Task[None] | None = None
        """Runs while answers are queued."""
        self._closing = False
        self._receiving = False
        self._received_s = 0.0
        self._start_until_s = asyncio.get_running_loop().time() + START_TIMEOUT_S
        self._reader: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._log = structlog.get_logger()

    async def run(self) -> None:
        self._reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait([self._reader])
        finally:
            self._reader.cancel()
            if self._idle is not None:
                self._idle.cancel()
            self._runner.detach(self)
            if (writer := self._writer) is not None:
                await asyncio.wait([writer], timeout=SEND_TIMEOUT_S)
                writer.cancel()

    def _new_runner(self) -> SessionRunner:
        client = self._websocket.client
        runner = self._registry.new_runner(client.host if client is not None else "", self._dialect)
        runner.open(self)
        return runner

    # ------------------------------------------------------------------------ the session's answers

    def answer(self, answer: e.Answer) -> None:
        segment_index = None
        if isinstance(answer, e.Problem):
            count_problem(answer.code)
            segment_index = answer.segment_index
        elif isinstance(answer, e.SegmentText):
            segment_index = answer.segment_index
        self._put(_Answer(list(self._dialect.encode(answer)), segment_index))

    def close(self, code: int, reason: str) -> None:
        """Close after all answers are sent. Accept nothing more from the client."""
        if code == CloseCode.NORMAL_CLOSURE and self._dialect.stays_open:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(
                START_TIMEOUT_S, self._end, CloseCode.POLICY_VIOLATION, NO_START
            )
        else:
            self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        self._put(e.Close(code=code, reason=reason))
        self._stop_reading()

    def displace(self, code: int, reason: str) -> None:
        """Close at once. Answers not sent yet are for the next connection."""
        self._drop_answers("displaced")
        self.close(code, reason)

    def _stop_reading(self) -> None:
        self._closing = True
        # Only while it waits for the client: the session gets every message that was read.
        if self._receiving and self._reader is not None:
            self._reader.cancel()

    # -------------------------------------------------------------------------------------- reading

    async def _read(self) -> None:
        bad_in_a_row = 0
        try:
            while not self._closing:
                try:
                    events = await self._next_events()
                except MessageError as error:
                    bad_in_a_row += 1
                    self._refuse(error)
                    if bad_in_a_row >= BAD_MESSAGES_IN_A_ROW_MAX:
                        self.close(CloseCode.POLICY_VIOLATION, "too many bad messages")
                    continue
                bad_in_a_row = 0
                for event in events:
                    if self._closing:
                        break
                    if isinstance(event, Ignored):
                        INPUT_IGNORED.labels(event.reason).inc()
                    else:
                        await self._take(event)
        except TimeoutError:
            self.close(CloseCode.POLICY_VIOLATION, NO_START)
        except WebSocketDisconnect:
            return  # ``run`` detaches the session.
        except Exception:
            self._runner.fail()
            self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def _refuse(self, error: MessageError) -> None:
        self.answer(e.Problem(code=error.code, message=str(error), chunk_index=error.chunk_index))
        if error.fatal:
            self.close(CloseCode.POLICY_VIOLATION, str(error))

    async def _next_events(self) -> Sequence[e.ClientEvent | Ignored]:
        self._receiving = True
        try:
            if self._runner.session.state is State.NEW:
                # Other messages do not extend it.
                async with asyncio.timeout_at(self._start_until_s):
                    message = await self._websocket.receive()
            else:
                message = await self._websocket.receive()
        finally:
            self._receiving = False
        self._received_s = time.monotonic()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        payload = message.get("text")
        return self._dialect.parse(payload if payload is not None else message["bytes"])

    async def _take(self, event: e.ClientEvent) -> None:
        if isinstance(event, e.Chunk) and len(event.data) > self._settings.chunk_bytes_max:
            self.close(CloseCode.MESSAGE_TOO_BIG, "chunk too large")
            return
        if isinstance(event, e.Start):
            await self._begin_next()
        if isinstance(event, e.Start) and self._runner.session.state is State.NEW:
            event = structs.replace(event, model=event.model or self._asked)
            found = await self._registry.reserve_or_resume(self._runner, event, self._admit)
            if isinstance(found, e.Problem):
                self._refuse_start(found)
                return
            self._runner = found
            # For log lines from deeper modules, such as a crashed decoder.
            structlog.contextvars.bind_contextvars(session_id=event.session_id)
            if found.session.state is not State.NEW:
                found.attach(self, event.next_segment_index)
                return
            found.open(self)
            found.begin(event)
            return
        await self._runner.take(self, event, self._received_s)

    def _admit(self, model: str) -> e.Problem | None:
        """Admit a session of this model, unless the gate has admitted it with the connection."""
        if model == self._admitted:
            return None
        refusal = self._gate.enter_model(model)
        if refusal is not None:
            self._try_later = True
            return e.Problem(code=refusal.code, message=refusal.message)
        self._admitted = model
        return None

    def _refuse_start(self, problem: e.Problem) -> None:
        """A client of the native protocol may start otherwise on the same connection."""
        self.answer(problem)
        if self._try_later:
            self.close(CloseCode.TRY_AGAIN_LATER, problem.message)
        elif not self._dialect.resumable:
            self.close(CloseCode.POLICY_VIOLATION, problem.message)

    async def _begin_next(self) -> None:
        """In a dialect of many sessions: after a finished session, begin the next."""
        begins = self._runner.session.state in (State.NEW, State.ACTIVE)
        if self._dialect.resumable or begins:
            return
        await self._runner.wait_over()
        if self._idle is not None:
            self._idle.cancel()
        self._runner.detach(self)
        self._runner = self._new_runner()
        self._start_until_s = asyncio.get_running_loop().time() + START_TIMEOUT_S

    # -------------------------------------------------------------------------------------- writing

    def _put(self, item: _Answer | e.Close) -> None:
        if self._closing:
            if not isinstance(item, e.Close):
                ANSWERS_DISCARDED.labels("closing").inc()
            return
        if self._writer is None and not isinstance(item, e.Close) and self._write(item):
            return
        if len(self._queue) >= ANSWERS_QUEUED_MAX:
            self._drop_slow_client()
            return
        self._queue.append(item)
        self._start_writer()

    def _write(self, answer: _Answer) -> bool:
        """Write without waiting. False: the answer, or what is left of it, must be queued."""
        texts = answer.texts
        while texts:
            if not self._write_at_once(texts[0]):
                return False
            del texts[0]
        self._note_written(answer)
        return True

    def _note_written(self, answer: _Answer) -> None:
        if answer.segment_index is not None:
            self._runner.note_written(self, answer.segment_index)

    def _start_writer(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_queue())

    async def _write_queue(self) -> None:
        """Send the queued answers, waiting for the client."""
        while self._queue:
            item = self._queue.popleft()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._send(item)
            except TimeoutError:
                self._drop_slow_client()
            except (WebSocketDisconnect, RuntimeError):
                # The client may disconnect at any moment. Reading tells the session.
                self._note_unsent(item)
        self._writer = None

    @staticmethod
    def _note_unsent(item: _Answer | e.Close) -> None:
        if not isinstance(item, e.Close):
            ANSWERS_DISCARDED.labels("client_away").inc()

    async def _send(self, item: _Answer | e.Close) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            self._note_unsent(item)
        elif isinstance(item, e.Close):
            CLOSED.labels(item.code).inc()
            await self._websocket.close(item.code, item.reason)
        else:
            for text in item.texts:
                await self._websocket.send_text(text)
            self._note_written(item)

    def _drop_answers(self, reason: str) -> None:
        ANSWERS_DISCARDED.labels(reason).inc(len(self._queue))
        self._queue.clear()

    def _drop_slow_client(self) -> None:
        if not self._closing:
            SLOW_CLIENTS.inc()
            session_id = self._runner.session.session_id
            self._log.warning("slow_client_closed", session_id=session_id)
        self._drop_answers("slow_client")
        self._queue.append(e.Close(code=CloseCode.TRY_AGAIN_LATER, reason="answers are not read"))
        self._start_writer()
        self._stop_reading()


@dataclass(slots=True)
class _Answer:
    """An encoded answer."""

    texts: list[str]
    segment_index: int | None


def _never(_text: str) -> bool:
    return False
