"""One WebSocket connection: feeds its client's messages to its session, and writes the answers.

Two tasks of one connection: reading (which also awaits decoding and speech detection, so that a
busy gateway leaves bytes in the socket), and writing. The session outlives the connection; in some
dialects a connection has one session after another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway.dialects.dialect import ClientEvent, Dialect, Ignored, MessageError
from gateway.session import events as e
from gateway.session.core import CLOSE_NORMAL
from gateway.session.runner import CLOSE_INTERNAL_ERROR, CLOSE_POLICY, SessionRunner
from gateway.session.states import State
from gateway.telemetry.metrics import (
    ANSWERS_DISCARDED,
    CHUNK_SECONDS,
    CLOSED,
    INPUT_IGNORED,
    SLOW_CLIENTS,
    count_problem,
)

ANSWERS_QUEUED_MAX = 1_000
"""Answers waiting for a client that doesn't read; then the connection is closed with 1013."""
SEND_TIMEOUT_S = 30.0
"""One answer's time to leave; then likewise."""
BAD_MESSAGES_IN_A_ROW_MAX = 3
START_TIMEOUT_S = 30.0
"""From the upgrade to ``start``, or from a session's end to the next; then the connection is closed
with 1008."""
NO_START = "no start in time"
CLOSE_TOO_BIG = 1009
CLOSE_TRY_LATER = 1013


class Gateway(Protocol):
    """What a connection needs of the gateway around it (``gateway.server.Server``)."""

    @property
    def chunk_bytes_max(self) -> int: ...
    def new_runner(self, client: str, dialect: Dialect) -> SessionRunner: ...
    async def claim(self, runner: SessionRunner, start: e.Start) -> SessionRunner | e.Problem:
        """The session that ``start`` asks for: ``runner``'s new one, or one to go on with."""


class Connection:
    """``run`` serves one accepted WebSocket until it is closed, by whichever side."""

    def __init__(self, websocket: WebSocket, dialect: Dialect, gateway: Gateway) -> None:
        self._websocket = websocket
        self._dialect = dialect
        self._gateway = gateway
        self._runner = self._new_host()
        self._outgoing: asyncio.Queue[_Answer | e.Close | None] = asyncio.Queue(ANSWERS_QUEUED_MAX)
        self._closing = False
        self._receiving = False
        self._received_s = 0.0
        self._start_until_s = asyncio.get_running_loop().time() + START_TIMEOUT_S
        self._reader: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._log = structlog.get_logger()

    async def run(self) -> None:
        writer = asyncio.create_task(self._write())
        self._reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait([self._reader])
        finally:
            self._reader.cancel()
            if self._idle is not None:
                self._idle.cancel()
            self._runner.detach(self)
            self._put(None)
            # The writer ends after the last answer; a client that doesn't read can't hold it.
            await asyncio.wait([writer], timeout=SEND_TIMEOUT_S)
            writer.cancel()

    def _new_host(self) -> SessionRunner:
        client = self._websocket.client
        runner = self._gateway.new_runner(client.host if client is not None else "", self._dialect)
        runner.open(self)
        return runner

    # ------------------------------------------------------------------------ what the session says

    def answer(self, answer: e.Answer) -> None:
        segment_index = None
        if isinstance(answer, e.Problem):
            count_problem(answer.code)
            segment_index = answer.segment_index
        elif isinstance(answer, e.SegmentText):
            segment_index = answer.segment_index
        self._put((tuple(self._dialect.encode(answer)), segment_index))

    def close(self, code: int, reason: str) -> None:
        """Close once everything before is sent, and take nothing more from the client."""
        if code == CLOSE_NORMAL and self._dialect.stays_open:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(START_TIMEOUT_S, self._end, CLOSE_POLICY, NO_START)
        else:
            self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        self._put(e.Close(code=code, reason=reason))
        self._stop_reading()

    def displace(self, code: int, reason: str) -> None:
        """Likewise, but at once: what is not sent yet is for the connection that follows."""
        self._drop_answers("displaced")
        self.close(code, reason)

    def _stop_reading(self) -> None:
        self._closing = True
        # Only while it waits for the client: what was read is given to the session in full.
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
                        self.close(CLOSE_POLICY, "too many bad messages")
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
            self.close(CLOSE_POLICY, NO_START)
        except WebSocketDisconnect:
            return  # ``run`` tells the session.
        except Exception:
            self._runner.fail()
            self.close(CLOSE_INTERNAL_ERROR, "internal error")

    def _refuse(self, error: MessageError) -> None:
        self.answer(e.Problem(code=error.code, message=str(error), chunk_index=error.chunk_index))
        if error.fatal:
            self.close(CLOSE_POLICY, str(error))

    async def _next_events(self) -> Sequence[ClientEvent | Ignored]:
        self._receiving = True
        try:
            if self._runner.session.state is State.NEW:
                # However much else it says before.
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

    async def _take(self, event: ClientEvent) -> None:
        if isinstance(event, e.Chunk) and len(event.data) > self._gateway.chunk_bytes_max:
            self.close(CLOSE_TOO_BIG, "chunk too large")
            return
        if isinstance(event, e.Start):
            await self._begin_next()
        if isinstance(event, e.Start) and self._runner.session.state is State.NEW:
            found = await self._gateway.claim(self._runner, event)
            if isinstance(found, e.Problem):
                self.answer(found)
                return
            self._runner = found
            # For whatever is logged on its behalf further down, such as a crashed decoder.
            structlog.contextvars.bind_contextvars(session_id=event.session_id)
            if found.session.state is not State.NEW:
                found.attach(self, event.next_segment_index)
                return
            found.open(self)
            found.begin(event)
        # A connection before this one may have left the session in the middle of a chunk.
        await self._runner.settled()
        if self._closing:
            return
        self._runner.handle(event)
        if isinstance(event, e.Chunk):
            CHUNK_SECONDS.observe(time.monotonic() - self._received_s)
        await self._runner.do_audio()

    async def _begin_next(self) -> None:
        """In a dialect of many sessions: the one before is finished, another is to begin."""
        finished = self._runner.session.state in (State.FINISHING, State.CONFIRMING, State.DONE)
        if self._dialect.resumable or not finished:
            return
        await self._runner.over()
        if self._idle is not None:
            self._idle.cancel()
        self._runner.detach(self)
        self._runner = self._new_host()
        self._start_until_s = asyncio.get_running_loop().time() + START_TIMEOUT_S

    # -------------------------------------------------------------------------------------- writing

    def _put(self, item: _Answer | e.Close | None) -> None:
        if self._closing and item is not None:
            if not isinstance(item, e.Close):
                ANSWERS_DISCARDED.labels("closing").inc()
            return
        try:
            self._outgoing.put_nowait(item)
        except asyncio.QueueFull:
            self._drop_slow_client()

    def _drop_answers(self, reason: str) -> None:
        ANSWERS_DISCARDED.labels(reason).inc(self._outgoing.qsize())
        while not self._outgoing.empty():
            self._outgoing.get_nowait()

    def _drop_slow_client(self) -> None:
        if not self._closing:
            SLOW_CLIENTS.inc()
            session_id = self._runner.session.session_id
            self._log.warning("slow_client_closed", session_id=session_id)
        self._drop_answers("slow_client")
        self._outgoing.put_nowait(e.Close(code=CLOSE_TRY_LATER, reason="answers are not read"))
        self._outgoing.put_nowait(None)
        self._stop_reading()

    async def _write(self) -> None:
        while (item := await self._outgoing.get()) is not None:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._send(item)
            except TimeoutError:
                self._drop_slow_client()
            except (WebSocketDisconnect, RuntimeError):
                # The client may be gone at any moment; reading tells the session so.
                self._note_unsent(item)

    @staticmethod
    def _note_unsent(item: _Answer | e.Close) -> None:
        if not isinstance(item, e.Close):
            ANSWERS_DISCARDED.labels("client_away").inc()

    async def _send(self, item: _Answer | e.Close) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            self._note_unsent(item)
            return
        if isinstance(item, e.Close):
            CLOSED.labels(item.code).inc()
            await self._websocket.close(item.code, item.reason)
            return
        texts, segment_index = item
        for text in texts:
            await self._websocket.send_text(text)
        if segment_index is not None:
            self._runner.note_written(self, segment_index)


_Answer = tuple[tuple[str, ...], int | None]
"""An encoded answer's messages, and the segment that it tells."""
