"""One WebSocket connection: feeds its client's messages to its session, and sends the answers.

Reading waits for the session to take each message (``SessionRunner.take``), so that a busy gateway
leaves bytes in the socket. Answers are written at once while the client reads them, and queued
while it does not. The session outlives the connection, and a connection may have one session after
another. Between them it is idle, for any time: pings find lost clients
(``gateway.web.uvicorn_protocols``), and ``gateway.admission.idle`` limits the number of idle ones.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from msgspec import structs
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.frames import CloseCode

from gateway.dialects.dialect import Dialect, Ignored, MessageError, Parsed, Reply
from gateway.dialects.native import LARGE_CHARS
from gateway.server import Server
from gateway.session import events as e
from gateway.session.runner import SessionRunner
from gateway.session.states import State
from gateway.telemetry.metrics import (
    ANSWERS_DISCARDED,
    CLOSED,
    INPUT_IGNORED,
    SLOW_CLIENTS,
    count_problem,
)
from gateway.web.caller import caller_of

ANSWERS_QUEUED_MAX = 1_000
"""Answers that wait for a client to read; then the connection is closed with 1013."""
SEND_TIMEOUT_S = 30.0
"""Timeout for sending one queued answer; then 1013."""
BAD_MESSAGES_IN_A_ROW_MAX = 3
REASON_BYTES_MAX = 123
"""A longer reason does not fit into a close frame (RFC 6455, 5.5), and is cut."""
MESSAGES_A_TURN_MAX = 32
"""Messages of a connection that are taken in a row. Thousands of tiny ones may arrive at once."""
ADMISSION_KEPT_S = 30.0
"""A session that starts later than this after the connection was admitted, or after the last
session on it, is admitted again, because an idle client has no reserved capacity."""
CLOSED_PROPERLY = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD)
"""Close codes of a client that closes its connection properly."""


WRITE_EXTENSION = "asr.websocket.write"
"""ASGI extension: a function that sends a text at once, or returns False if sending would block
(``gateway.web.uvicorn_protocols``). Without it every answer is queued."""
LARGE_EXTENSION = "asr.websocket.large"
"""ASGI extension: a function to call once the client may send large messages
(``gateway.web.uvicorn_protocols``)."""


class WebSocketConnection:
    """``run`` serves one accepted WebSocket until either side closes it."""

    def __init__(
        self,
        websocket: WebSocket,
        dialect: Dialect,
        server: Server,
        *,
        address_model: str = "",
        ignored: tuple[str, ...] = (),
        admitted: str | None = None,
    ) -> None:
        """``address_model``: the model that the address names, for sessions that name none.
        ``ignored``: parameters of the address that have no effect.
        ``admitted``: the model that the gate has admitted; None: it did not know the model."""
        self._websocket = websocket
        self._caller = caller_of(websocket)
        self._address_model = address_model
        self._ignored = ignored
        self._admitted = admitted
        self._try_later = False
        """The last start was refused because of a limit, not because of its fields."""
        self._gate = server.gate
        self._dialect = dialect
        self._registry = server.registry
        self._settings = server.settings
        self._runner = self._new_runner()
        extensions = websocket.scope.get("extensions") or {}
        self._write_at_once: Callable[[str], bool]
        self._write_at_once = extensions.get(WRITE_EXTENSION, lambda _text: False)
        self._allow_large: Callable[[], None] = extensions.get(LARGE_EXTENSION, lambda: None)
        self._queue: deque[_Answer | e.Close] = deque()
        self._writer: asyncio.Task[None] | None = None
        """Runs while answers are queued."""
        self._closing = False
        self._receiving = False
        self._received_s = 0.0
        self._messages_received = 0
        self._admitted_until_s = asyncio.get_running_loop().time() + ADMISSION_KEPT_S
        self._reader: asyncio.Task[None] | None = None
        self._idle = False
        self._set_idle(True)
        self._log = structlog.get_logger()

    async def run(self) -> None:
        if greeting := self._dialect.greeting():
            self._put(_Answer(list(greeting), None))
        if not self._dialect.resumable:
            self._allow_large()  # These protocols have no start before their audio.
        self._reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait([self._reader])
        finally:
            self._reader.cancel()
            self._set_idle(False)
            self._runner.detach(self)
            if (writer := self._writer) is not None:
                await asyncio.wait([writer], timeout=SEND_TIMEOUT_S)
                writer.cancel()

    def _new_runner(self) -> SessionRunner:
        runner = self._registry.new_runner(self._caller, self._dialect)
        runner.open(self)
        return runner

    def _set_idle(self, idle: bool) -> None:
        """Note whether the connection has no running session."""
        if idle != self._idle:
            self._idle = idle
            self._gate.note_idle(self._caller.address, 1 if idle else -1)

    # ------------------------------------------------------------------------ the session's answers

    def answer(self, answer: e.Answer) -> None:
        if isinstance(answer, e.Problem):
            count_problem(answer.code)
        index = answer.segment_index if isinstance(answer, e.Problem | e.SegmentText) else None
        self._put(_Answer(list(self._dialect.encode(answer)), index))

    def close(self, code: int, reason: str) -> None:
        """Close after all answers are sent. Accept nothing more from the client."""
        if code == CloseCode.NORMAL_CLOSURE and self._dialect.stays_open:
            self._admitted_until_s = asyncio.get_running_loop().time() + ADMISSION_KEPT_S
            self._set_idle(True)
            return
        self._put(e.Close(code=code, reason=reason))
        self._stop_reading()

    def displace(self, code: int, reason: str) -> None:
        """Close at once. Answers not sent yet are for the next connection."""
        self._drop_answers("displaced")
        self.close(code, reason)

    def _stop_reading(self) -> None:
        self._closing = True
        # Cancelled only while it waits for the client: the session gets every message that was
        # read.
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
                    if self._closing or not await self._take(event):
                        break
        except WebSocketDisconnect as closed:
            # ``run`` detaches the session.
            if closed.code in CLOSED_PROPERLY:
                for event in self._dialect.hung_up():
                    await self._take(event)
        except Exception:
            self._runner.fail()
            self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def _refuse(self, error: MessageError) -> None:
        self.answer(e.Problem(code=error.code, message=str(error), chunk_index=error.chunk_index))
        if error.fatal:
            self.close(CloseCode.POLICY_VIOLATION, str(error))

    async def _next_events(self) -> Sequence[Parsed]:
        self._messages_received += 1
        if self._messages_received % MESSAGES_A_TURN_MAX == 0:
            await asyncio.sleep(0)
        self._receiving = True
        try:
            message = await self._websocket.receive()
        finally:
            self._receiving = False
        self._received_s = time.monotonic()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        payload = message.get("text")
        if payload is None:
            return self._dialect.parse(message["bytes"])
        if len(payload) > LARGE_CHARS and self._dialect.resumable:
            # In a thread, so that other sessions continue. The resumable dialect has no state.
            return await asyncio.to_thread(self._dialect.parse, payload)
        return self._dialect.parse(payload)

    async def _take(self, event: Parsed) -> bool:
        """False: what follows from the same message has no session."""
        if isinstance(event, Ignored):
            INPUT_IGNORED.labels(event.reason).inc()
            return True
        if isinstance(event, Reply):
            if event.problem is not None:
                count_problem(event.problem)
            self._put(_Answer([event.text], None))
            return True
        if isinstance(event, e.Chunk) and len(event.data) > self._settings.chunk_bytes_max:
            self.close(CloseCode.MESSAGE_TOO_BIG, "chunk too large")
            return False
        if isinstance(event, e.Start):
            return await self._start(event)
        await self._runner.take(self, event, self._received_s)
        return True

    async def _start(self, event: e.Start) -> bool:
        await self._begin_next()
        if self._runner.session.state is not State.NEW:
            await self._runner.take(self, event)
            return True
        event = structs.replace(
            event,
            model=event.model or self._address_model,
            ignored_fields=self._ignored + event.ignored_fields,
        )
        found = await self._registry.reserve_or_resume(self._runner, event, self._admit)
        if isinstance(found, e.Problem):
            self._refuse_start(found)
            return False
        self._runner = found
        self._set_idle(False)
        self._allow_large()
        # For log lines from deeper modules, such as a crashed decoder.
        structlog.contextvars.bind_contextvars(session_id=event.session_id)
        if found.session.state is State.NEW:
            found.open(self)
            found.begin(event)
        else:
            found.attach(self, event.next_segment_index)
        return True

    def _admit(self, model: str) -> e.Problem | None:
        """Admit a session of this model, unless the gate has admitted it with the connection, or
        the last session on it, a short time ago."""
        fresh = asyncio.get_running_loop().time() <= self._admitted_until_s
        refusal = self._gate.enter_session(self._caller)
        if refusal is None and not (model == self._admitted and fresh):
            refusal = self._gate.enter_model(model)
        if refusal is not None:
            self._try_later = True
            return e.Problem(code=refusal.code, message=refusal.message)
        self._admitted = model
        return None

    def _refuse_start(self, problem: e.Problem) -> None:
        self.answer(problem)
        if self._try_later:
            self.close(CloseCode.TRY_AGAIN_LATER, problem.message)
        elif not self._dialect.may_start_again:
            self.close(CloseCode.POLICY_VIOLATION, problem.message)

    async def _begin_next(self) -> None:
        """After the end of the last session's audio, wait for its final result and begin the
        next."""
        if self._runner.session.state in (State.NEW, State.ACTIVE):
            return
        await self._runner.wait_over()
        self._runner.detach(self)
        self._runner = self._new_runner()

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
        while answer.texts:
            if not self._write_at_once(answer.texts[0]):
                return False
            del answer.texts[0]
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
                # The client may disconnect at any moment. ``_read`` notices it for the session.
                if isinstance(item, _Answer):
                    ANSWERS_DISCARDED.labels("client_away").inc()
        self._writer = None

    async def _send(self, item: _Answer | e.Close) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect
        if isinstance(item, e.Close):
            CLOSED.labels(item.code).inc()
            reason = item.reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
            await self._websocket.close(item.code, reason)
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
    texts: list[str]
    segment_index: int | None
