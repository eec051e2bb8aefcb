"""A client of the native protocol (``/ws/asr``) that survives lost connections.

Example::

    async with connect("ws://127.0.0.1:8080/ws/asr", mode="auto") as session:
        for piece in pieces:              # raw s16le PCM, or slices of a file of any format
            await session.send(piece)
        await session.finish()
        async for event in session.events():
            ...                           # ChunkText, PartialText, Problem; FinalText ends it

When the connection breaks, the session connects again, to whichever gateway answers, and goes on
where the server says: each segment is told once, in order, as if nothing had happened. For that the
latest audio is kept (``tools.client_session.REPLAY_BYTES_MAX``). The transcribe tool, the examples
and the tests use this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection

from runtime.backoff import Backoff
from tools.client_session import (
    Acknowledged,
    ChunkLog,
    ChunkText,
    ClientSession,
    Event,
    FinalText,
    Mode,
    PartialText,
    Problem,
    SessionError,
    SessionLostError,
    Started,
    parse_event,
    start_fields,
)

__all__ = [
    "Acknowledged",
    "AsrSession",
    "ChunkText",
    "Event",
    "FinalText",
    "Mode",
    "PartialText",
    "Problem",
    "RefusedError",
    "SessionError",
    "SessionLostError",
    "Started",
    "authorization",
    "connect",
    "parse_event",
]

DEFAULT_URL = "ws://127.0.0.1:8080/ws/asr"
UNACKNOWLEDGED_CHUNKS_MAX = 64
"""Chunks on their way; at the limit ``send`` waits. Above 10, the gateway's cumulative ack."""
UNREAD_EVENTS_MAX = 4096
"""Events the caller has not taken; at the limit nothing more is read, so acks stop and ``send``
waits: take events while sending when a session is long."""
OPEN_TIMEOUT_S = 10.0
MESSAGE_BYTES_MAX = 1 << 20
RESUME_S = 60.0
"""How long a lost connection is tried to be replaced, unless the caller says otherwise; the server
keeps a session for as long (``RESUME_WAIT_S``). Then ``SessionLostError``."""
RETRY_INITIAL_S = 0.2
RETRY_MAX_S = 5.0
WORTH_RESUMING = frozenset({1001, 1005, 1006, 1011, 1012, 1013})
"""Close codes after which the same session may go on: going away, gone, a server's trouble."""
RESUME_LATER = "resume_unavailable"
TOKEN_VARIABLE = "ASR_TOKEN"
"""Where the tools look for a token: what stands among a command's arguments, everybody on the
machine can read."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def authorization(token: str | None) -> dict[str, str]:
    """The header that shows ``token``; none without one."""
    return {"Authorization": f"Bearer {token}"} if token else {}


class RefusedError(SessionError):
    """The server did not take the connection.

    ``status`` is the HTTP status (503: busy, try again after ``retry_after_s``; 401: it wants a
    token).
    """

    def __init__(self, status: int, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class _TryLaterError(SessionError):
    """The server cannot resume the session just now."""


class AsrSession:
    """One started session. Made by ``connect``, which also closes it.

    Not to be shared between tasks, except that one task may send while another takes events.
    """

    def __init__(self, core: ClientSession, chunks: ChunkLog) -> None:
        self.connections = 1
        """How many connections the session has had."""
        self._core = core
        self._chunks = chunks
        self._events: asyncio.Queue[Event | SessionError] = asyncio.Queue(UNREAD_EVENTS_MAX)
        self._progress = asyncio.Event()
        self._to_send = asyncio.Event()
        self._failure: SessionError | None = None
        self._ended = False

    @property
    def session_id(self) -> str:
        return self._core.session_id

    @property
    def resume_token(self) -> str:
        """The secret with which this session can be resumed, from another process too."""
        assert self._core.resume_token is not None
        return self._core.resume_token

    @property
    def acknowledged_chunks(self) -> int:
        """Chunks that the server has received."""
        return self._core.acknowledged_chunks

    async def send(self, audio: bytes) -> int:
        """Send the next chunk; waits while too many are unacknowledged.

        Returns:
            The chunk's index.

        Raises:
            SessionError: if the session is lost.
        """
        while len(self._chunks) - self._core.acknowledged_chunks >= UNACKNOWLEDGED_CHUNKS_MAX:
            self._raise_failure()
            self._progress.clear()
            await self._progress.wait()
        self._raise_failure()
        index = len(self._chunks)
        self._chunks.append(audio)
        self._to_send.set()
        return index

    async def finish(self) -> None:
        """Say that no more audio comes; ``FinalText`` follows among the events.

        Raises:
            SessionError: if the session is lost.
        """
        self._raise_failure()
        self._core.finish()
        self._to_send.set()

    async def events(self) -> AsyncIterator[Event]:
        """What the server tells, in order; ends after ``FinalText``.

        Raises:
            SessionError: if the session is lost before that.
        """
        while not self._ended:
            event = await self._events.get()
            if isinstance(event, SessionError):
                raise event
            self._ended = isinstance(event, FinalText)
            yield event

    async def final(self) -> FinalText:
        """Take events up to the final one, for callers that want nothing else."""
        async for event in self.events():
            if isinstance(event, FinalText):
                return event
        raise SessionLostError("the final result was already taken")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # ------------------------------------------------------- what ``connect`` runs behind the scene

    async def _run(self, socket: ClientConnection, dialer: _Dialer, resume_s: float) -> None:
        """Serve connection after connection until the final result, or until there is none."""
        failure: SessionError = SessionLostError("the server closed the session")
        try:
            while True:
                code = await self._serve(socket)
                if self._core.final is not None:
                    break
                failure = SessionLostError(f"connection lost (close code {code})")
                if code not in WORTH_RESUMING or resume_s <= 0:
                    break
                socket, resumed = await dialer.redial(self._core, resume_s)
                self.connections += 1
                await self._events.put(resumed)
        except SessionError as error:
            failure = error
        self._failure = failure
        self._progress.set()
        await self._events.put(failure)

    async def _serve(self, socket: ClientConnection) -> int:
        """Send and receive until the connection ends; returns its close code."""
        sending = asyncio.create_task(self._send_on(socket))
        receiving = asyncio.create_task(self._receive(socket))
        try:
            await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not receiving.done() and (error := sending.exception()):
                raise error
            await receiving
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
            await socket.close()
            self._core.lost()
        return socket.close_code or 1006

    async def _send_on(self, socket: ClientConnection) -> None:
        while True:
            self._to_send.clear()
            while (message := self._core.next_message()) is not None:
                try:
                    await socket.send(message)
                except websockets.ConnectionClosed:
                    return  # Receiving notices too, and says how it ended.
            await self._to_send.wait()

    async def _receive(self, socket: ClientConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in socket:
                event = self._core.receive(message)
                self._progress.set()
                if event is not None:
                    await self._events.put(event)


class _Dialer:
    """Opens connections for one session."""

    def __init__(self, url: str, headers: Mapping[str, str] | None) -> None:
        self._url = url
        self._headers = headers

    async def dial(self, core: ClientSession) -> tuple[ClientConnection, Started]:
        """A connection with the session started on it.

        Raises:
            RefusedError: if the server turns the connection away.
            SessionError: if it cannot be reached or does not start the session.
        """
        socket = await _open(core.address(self._url), self._headers)
        try:
            return socket, await _start(socket, core)
        except BaseException:
            await socket.close()
            raise

    async def redial(
        self, core: ClientSession, resume_s: float
    ) -> tuple[ClientConnection, Started]:
        """Another connection after a lost one, tried for ``resume_s``.

        Raises:
            SessionError: if the session cannot be resumed.
        """
        deadline_s = time.monotonic() + resume_s
        backoff = Backoff(RETRY_INITIAL_S, RETRY_MAX_S, random.Random())
        while True:
            try:
                return await self.dial(core)
            except (SessionLostError, _TryLaterError, RefusedError) as error:
                if isinstance(error, RefusedError) and error.status != 503:
                    raise
                delay_s = backoff.next_delay_s()
                if isinstance(error, RefusedError) and error.retry_after_s is not None:
                    delay_s += error.retry_after_s
                if time.monotonic() + delay_s > deadline_s:
                    message = f"not resumed within {resume_s:g} s: {error}"
                    raise SessionLostError(message) from error
            await asyncio.sleep(delay_s)


@contextlib.asynccontextmanager
async def connect(
    url: str = DEFAULT_URL,
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    mode: Mode = "auto",
    sample_rate_hz: int = 16_000,
    language: str | None = None,
    hotwords: Sequence[str] = (),
    partials: bool = False,
    binary: bool = True,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    resume_s: float = RESUME_S,
) -> AsyncIterator[AsrSession]:
    """Connect and start a session; leaving the context closes the connection.

    Args:
        sample_rate_hz: Of raw PCM; containers say their own.
        binary: Chunks as binary frames; otherwise as JSON with base64.
        token: For a server that lets in only who has one.
        resume_s: For how long to try to replace a lost connection; 0: not at all.

    Raises:
        RefusedError: if the server turns the connection away (503: see ``retry_after_s``).
        SessionError: if it cannot be reached or does not start the session.
    """
    start = start_fields(
        session_id or str(uuid.uuid4()),
        user_id=user_id,
        mode=mode,
        sample_rate_hz=sample_rate_hz,
        language=language,
        hotwords=hotwords,
        partials=partials,
    )
    chunks = ChunkLog()
    core = ClientSession(start, chunks, binary=binary)
    dialer = _Dialer(url, {**(headers or {}), **authorization(token)})
    socket, _ = await dialer.dial(core)
    session = AsrSession(core, chunks)
    running = asyncio.create_task(session._run(socket, dialer, resume_s))
    try:
        yield session
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await socket.close()


async def _open(url: str, headers: Mapping[str, str] | None) -> ClientConnection:
    try:
        return await websockets.connect(
            url,
            additional_headers=headers,
            compression=None,
            max_size=MESSAGE_BYTES_MAX,
            open_timeout=OPEN_TIMEOUT_S,
            proxy=None if urlsplit(url).hostname in _LOOPBACK else True,
        )
    except websockets.InvalidStatus as error:
        raise _refusal(error) from error
    except ValueError as error:
        raise SessionError(f"cannot connect to {url}: {error}") from error
    except (OSError, websockets.WebSocketException) as error:
        raise SessionLostError(f"cannot connect to {url}: {error}") from error


def _refusal(error: websockets.InvalidStatus) -> RefusedError:
    response = error.response
    try:
        retry_after_s = float(response.headers.get("Retry-After", "nan"))
    except ValueError:  # The header may also be a date (RFC 9110, 10.2.3); ours never is.
        retry_after_s = math.nan
    message = (response.body or b"").decode("utf-8", "replace").strip() or response.reason_phrase
    return RefusedError(
        response.status_code, message, retry_after_s if math.isfinite(retry_after_s) else None
    )


async def _start(socket: ClientConnection, core: ClientSession) -> Started:
    try:
        await socket.send(core.start_message())
        event = core.receive(await socket.recv())
    except websockets.ConnectionClosed as error:
        raise SessionLostError(f"connection lost: {error}") from error
    if isinstance(event, Problem):
        failure = _TryLaterError if event.code == RESUME_LATER else SessionError
        raise failure(f"{event.code}: {event.message}")
    if not isinstance(event, Started):
        raise SessionError(f"the server did not start the session: {type(event).__name__}")
    return event
