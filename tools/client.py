"""A client of the native protocol (``/ws/asr``): one session over one WebSocket.

Example::

    async with connect("ws://127.0.0.1:8080/ws/asr", mode="auto") as session:
        for piece in pieces:              # raw s16le PCM, or slices of a file of any format
            await session.send(piece)
        await session.finish()
        async for event in session.events():
            ...                           # ChunkText, PartialText, Problem; FinalText ends it

The transcribe tool, the load tests and the integration tests all use it. It keeps no audio: a
session whose connection is lost raises ``SessionLostError``; resuming (``session.resume_token``,
``session.acknowledged_chunks``) is for a caller that still has the audio.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Data

Mode = Literal["auto", "stream", "chunk"]

DEFAULT_URL = "ws://127.0.0.1:8080/ws/asr"
UNACKNOWLEDGED_CHUNKS_MAX = 64
"""Chunks on their way; at the limit ``send`` waits. Above 10, the gateway's cumulative ack."""
UNREAD_EVENTS_MAX = 4096
"""Events the caller has not taken; at the limit nothing more is read, so acks stop and ``send``
waits: take events while sending when a session is long."""
OPEN_TIMEOUT_S = 10.0
MESSAGE_BYTES_MAX = 1 << 20
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class SessionError(Exception):
    """The session cannot go on; the message says why."""


class RefusedError(SessionError):
    """The server did not take the connection.

    ``status`` is the HTTP status (503: busy, try again after ``retry_after_s``).
    """

    def __init__(self, status: int, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class SessionLostError(SessionError):
    """The connection ended before the final result."""


@dataclass(frozen=True, slots=True)
class Started:
    session_id: str
    resume_token: str
    next_chunk_index: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Every chunk up to and including ``chunk_index`` was received."""

    chunk_index: int


@dataclass(frozen=True, slots=True)
class PartialText:
    segment_index: int
    text: str


@dataclass(frozen=True, slots=True)
class ChunkText:
    """The text of one segment; segments come in order."""

    segment_index: int
    chunk_index: int
    start_ms: int
    end_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class FinalText:
    """The whole text, and whether it is already committed to the database."""

    text: str
    duration_s: float
    chunk_count: int
    stored: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """The server could not do something; the session goes on unless it closes it."""

    code: str
    message: str
    chunk_index: int | None
    segment_index: int | None
    expected_chunk_index: int | None


Event = Started | Acknowledged | PartialText | ChunkText | FinalText | Problem


def parse_event(message: Data) -> Event:
    """The typed event in one message of the server.

    Raises:
        SessionError: if it is none that this protocol knows.
    """
    try:
        return _event_of(json.loads(message))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SessionError(f"the server sent no event: {error!r}") from error


def _event_of(fields: Mapping[str, Any]) -> Event:
    kind = fields["type"]
    if kind == "ack" and fields["status"] == "received":
        return Acknowledged(fields["chunk_index"])
    if kind == "ack":
        return Started(fields["session_id"], fields["resume_token"], fields["next_chunk_index"])
    if kind == "partial_result":
        return PartialText(fields["segment_index"], fields["text"])
    if kind == "chunk_result":
        return ChunkText(
            segment_index=fields["segment_index"],
            chunk_index=fields["chunk_index"],
            start_ms=fields["start_ms"],
            end_ms=fields["end_ms"],
            text=fields["text"],
        )
    if kind == "final_result":
        return FinalText(
            text=fields["text"],
            duration_s=fields["duration"],
            chunk_count=fields["chunk_count"],
            stored=fields["stored"],
        )
    if kind == "error":
        optional = ("chunk_index", "segment_index", "expected_chunk_index")
        return Problem(fields["code"], fields["message"], *(fields.get(key) for key in optional))
    raise ValueError(f"unknown type {kind!r}")


class AsrSession:
    """One started session. Made by ``connect``, which also closes it.

    Not to be shared between tasks, except that one task may send while another takes events.
    """

    def __init__(self, socket: ClientConnection, started: Started, *, binary: bool) -> None:
        self.session_id = started.session_id
        self.resume_token = started.resume_token
        self.next_chunk_index = started.next_chunk_index
        self.acknowledged_chunks = started.next_chunk_index
        """Chunks the server has for certain: the index from which a resumed session goes on."""
        self._socket = socket
        self._binary = binary
        self._events: asyncio.Queue[Event | SessionError] = asyncio.Queue(UNREAD_EVENTS_MAX)
        self._progress = asyncio.Event()
        self._failure: SessionError | None = None
        self._ended = False

    async def send(self, audio: bytes) -> int:
        """Send the next chunk; waits while too many are unacknowledged.

        Returns:
            The chunk's index.

        Raises:
            SessionLostError: if the connection is gone.
        """
        while self.next_chunk_index - self.acknowledged_chunks >= UNACKNOWLEDGED_CHUNKS_MAX:
            if self._failure is not None:
                raise self._failure
            self._progress.clear()
            await self._progress.wait()
        index = self.next_chunk_index
        self.next_chunk_index += 1
        if self._binary:
            await self._transmit(audio)
        else:
            await self._act("chunk", chunk_index=index, audio_data=base64.b64encode(audio).decode())
        return index

    async def finish(self) -> None:
        """Say that no more audio comes; ``FinalText`` follows among the events."""
        await self._act("finish")

    async def events(self) -> AsyncIterator[Event]:
        """What the server tells, in order; ends after ``FinalText``.

        Raises:
            SessionLostError: if the connection ends before that.
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

    async def _act(self, action: str, **fields: Any) -> None:
        message = {"action": action, "session_id": self.session_id, **fields}
        await self._transmit(json.dumps(message))

    async def _transmit(self, message: Data) -> None:
        try:
            await self._socket.send(message)
        except websockets.ConnectionClosed as error:
            raise self._failure or SessionLostError(f"connection lost: {error}") from error

    async def _receive(self) -> None:
        """Read until the connection ends; ``connect`` runs it as a task."""
        try:
            async for message in self._socket:
                event = parse_event(message)
                self._note(event)
                await self._events.put(event)
            failure: SessionError = SessionLostError("the server closed the session")
        except websockets.ConnectionClosed as error:
            failure = SessionLostError(f"connection lost: {error}")
        except SessionError as error:
            failure = error
        self._failure = failure
        self._progress.set()
        await self._events.put(failure)

    def _note(self, event: Event) -> None:
        # A problem with a chunk answers for it as an acknowledgement does.
        if isinstance(event, Acknowledged | Problem) and event.chunk_index is not None:
            self.acknowledged_chunks = max(self.acknowledged_chunks, event.chunk_index + 1)
            self._progress.set()


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
) -> AsyncIterator[AsrSession]:
    """Connect and start a session; leaving the context closes the connection.

    Args:
        sample_rate_hz: Of raw PCM; containers say their own.
        binary: Chunks as binary frames; otherwise as JSON with base64.

    Raises:
        RefusedError: if the server turns the connection away (503: see ``retry_after_s``).
        SessionError: if it cannot be reached or does not start the session.
    """
    start: dict[str, Any] = {
        "action": "start",
        "session_id": session_id or str(uuid.uuid4()),
        "mode": mode,
        "sample_rate": sample_rate_hz,
        "partials": partials,
    }
    if user_id is not None:
        start["user_id"] = user_id
    if language is not None:
        start["language"] = language
    if hotwords:
        start["hotwords"] = list(hotwords)
    async with await _open(url, headers) as socket:
        session = AsrSession(socket, await _started(socket, start), binary=binary)
        receiving = asyncio.create_task(session._receive())
        try:
            yield session
        finally:
            receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await receiving


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
    except (OSError, ValueError, websockets.WebSocketException) as error:
        raise SessionError(f"cannot connect to {url}: {error}") from error


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


async def _started(socket: ClientConnection, start: Mapping[str, Any]) -> Started:
    try:
        await socket.send(json.dumps(start))
        event = parse_event(await socket.recv())
    except websockets.ConnectionClosed as error:
        raise SessionLostError(f"connection lost: {error}") from error
    if isinstance(event, Problem):
        raise SessionError(f"{event.code}: {event.message}")
    if not isinstance(event, Started):
        raise SessionError(f"the server did not start the session: {type(event).__name__}")
    return event
