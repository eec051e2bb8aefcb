"""Sessions over WebSocket that resume after lost connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection

from asr_client.addresses import websocket_url
from asr_client.events import Acknowledged, Event, FinalResult, Problem, Segment, Started
from asr_client.exceptions import (
    ServerBusyError,
    SessionError,
    SessionLostError,
    UnreachableError,
    message_of,
    refusal,
)
from asr_client.protocol import (
    RESUMABLE_CLOSE_CODES,
    RESUME_UNAVAILABLE,
    ClientProtocol,
    Mode,
    ReplayBuffer,
    start_fields,
)

DEFAULT_URL = "ws://127.0.0.1:8080/ws/asr"
TOKEN_VARIABLE = "ASR_TOKEN"
"""Environment variable from which programs take the access token. Unlike the arguments of a
command, other users of the machine cannot read it."""
UNACKNOWLEDGED_CHUNKS_MAX = 64
"""Chunks sent and not acknowledged; at the limit ``send()`` waits. The server acknowledges binary
frames at least every 10 chunks."""
UNREAD_EVENTS_MAX = 4096
"""Events received and not yet taken by the caller; at the limit the client stops reading, so that
acknowledgements stop and ``send()`` waits."""
PROBLEMS_KEPT_MAX = 100
"""Length of ``Session.problems``; at the limit the oldest is dropped."""
OPEN_TIMEOUT_S = 10.0
"""Limit on the opening of a connection, by default: TCP, TLS and the WebSocket handshake."""
START_TIMEOUT_S = 30.0
"""Limit on the answer to ``start``, for which a gateway may have to take over a session."""
MESSAGE_BYTES_MAX = 1 << 20
RESUME_S = 60.0
"""Time for which the client tries to resume a session, by default. The server keeps a disconnected
session for as long (``RESUME_WAIT_S``). Then ``SessionLostError`` is raised."""
RETRY_INITIAL_S = 0.2
RETRY_MAX_S = 5.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

logger = logging.getLogger("asr_client")


class _RetryableError(SessionError):
    """The server cannot resume the session at the moment."""


class Session:
    """One started session. ``connect()`` creates and closes it.

    Send audio with ``send()``, mark its end with ``finish()``, and iterate over the session to
    receive its segments::

        async for segment in session:
            print(segment.start_ms, segment.text)

    One task may send while another iterates. For audio that takes more than a few minutes, iterate
    while sending: ``send()`` waits when ``UNREAD_EVENTS_MAX`` results have not been taken.

    Attributes:
        connections: Number of connections so far; above 1, the session was resumed.
        problems: The latest errors that the server reported, failed segments among them.
        started: The server's answer to the start, with the ``model`` and ``warnings`` about options
            that have no effect.
    """

    def __init__(self, protocol: ClientProtocol, chunks: ReplayBuffer, started: Started) -> None:
        self.connections = 1
        self.started = started
        self.problems: deque[Problem] = deque(maxlen=PROBLEMS_KEPT_MAX)
        self._protocol = protocol
        self._chunks = chunks
        self._events: asyncio.Queue[Event | SessionError] = asyncio.Queue(UNREAD_EVENTS_MAX)
        self._progress = asyncio.Event()
        self._to_send = asyncio.Event()
        self._failure: SessionError | None = None
        self._final: FinalResult | None = None

    @property
    def session_id(self) -> str:
        return self._protocol.session_id

    @property
    def resume_token(self) -> str:
        """Secret with which this session can be resumed, also from another process."""
        assert self._protocol.resume_token is not None
        return self._protocol.resume_token

    @property
    def acknowledged_chunks(self) -> int:
        """Number of chunks that the server has received."""
        return self._protocol.acknowledged_chunks

    @property
    def final_result(self) -> FinalResult | None:
        """The final result, once it has been received."""
        return self._final

    async def send(self, audio: bytes) -> int:
        """Send the next chunk of audio and return its index.

        The chunk is 16-bit little-endian mono PCM at the session's sample rate, or a slice of a
        file of any audio format. Chunks need not end at a word or frame boundary. The call
        waits while ``UNACKNOWLEDGED_CHUNKS_MAX`` chunks are unacknowledged.

        Raises:
            SessionError: If the session is lost.
        """
        while len(self._chunks) - self._protocol.acknowledged_chunks >= UNACKNOWLEDGED_CHUNKS_MAX:
            self._raise_failure()
            self._progress.clear()
            await self._progress.wait()
        self._raise_failure()
        index = len(self._chunks)
        self._chunks.append(audio)
        self._to_send.set()
        return index

    async def finish(self) -> None:
        """Mark the end of the audio. After calling this you must not send; iterate to the end.

        Raises:
            SessionError: If the session is lost.
        """
        self._raise_failure()
        self._protocol.finish()
        self._to_send.set()

    async def __aiter__(self) -> AsyncIterator[Segment]:
        """Yield segments in order, each once, until the final result.

        A failed segment is not yielded: it is logged as a warning and added to ``problems``.

        Raises:
            SessionError: If the session is lost before the final result.
        """
        async for event in self.events():
            if isinstance(event, Segment):
                yield event
            elif isinstance(event, Problem):
                logger.warning("%s: %s", event.code, event.message)

    async def events(self) -> AsyncIterator[Event]:
        """Yield all events but acknowledgements, in order, up to ``FinalResult``.

        ``Started`` is among them only when the session was resumed.

        Raises:
            SessionError: If the session is lost before the final result.
        """
        while self._final is None:
            event = await self._events.get()
            if isinstance(event, SessionError):
                self._events.put_nowait(event)  # The next caller gets it, too.
                raise event
            if isinstance(event, Problem):
                self.problems.append(event)
            elif isinstance(event, FinalResult):
                self._final = event
            yield event

    async def final(self) -> FinalResult:
        """Wait for the final result; events before it are discarded.

        Raises:
            SessionError: If the session is lost before the final result.
        """
        async for _ in self.events():
            pass
        assert self._final is not None
        return self._final

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # ------------------------------------------------------------- run by connect() in its own task

    async def _run(self, socket: ClientConnection, dialer: _Dialer, resume_s: float) -> None:
        """Serve connection after connection until the final result, or until resumption fails."""
        failure: SessionError = SessionLostError("the server closed the session")
        try:
            while True:
                code = await self._serve(socket)
                if self._protocol.final is not None:
                    break
                failure = SessionLostError(f"connection lost (close code {code})")
                if code not in RESUMABLE_CLOSE_CODES or resume_s <= 0:
                    break
                logger.warning("%s, resuming session %s", failure, self.session_id)
                socket, resumed = await dialer.redial(self._protocol, resume_s)
                self.connections += 1
                await self._events.put(resumed)
        except SessionError as error:
            failure = error
        self._failure = failure
        self._progress.set()
        await self._events.put(failure)

    async def _serve(self, socket: ClientConnection) -> int:
        """Send and receive until the connection ends; return its close code."""
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
            self._protocol.connection_lost()
        return socket.close_code or 1006

    async def _send_on(self, socket: ClientConnection) -> None:
        while True:
            self._to_send.clear()
            while (message := self._protocol.next_message()) is not None:
                try:
                    await socket.send(message)
                except websockets.ConnectionClosed:
                    return  # The receiving task reports how the connection ended.
            await self._to_send.wait()

    async def _receive(self, socket: ClientConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in socket:
                event = self._protocol.receive(message)
                self._progress.set()
                if event is not None and not isinstance(event, Acknowledged):
                    await self._events.put(event)
                if isinstance(event, FinalResult):
                    return  # The server keeps the connection open for another session.


class _Dialer:
    """Opens the connections of one session."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None,
        open_timeout_s: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        try:
            self._url = websocket_url(url)
        except ValueError as error:
            raise SessionError(str(error)) from error
        self._headers = headers
        self._open_timeout_s = open_timeout_s
        self._tls = tls

    async def dial(self, protocol: ClientProtocol) -> tuple[ClientConnection, Started]:
        """Open a connection and start the session on it.

        Raises:
            RefusedError: If the server refuses the connection.
            SessionError: If the server cannot be reached or does not start the session.
        """
        socket = await _open(
            protocol.url(self._url), self._headers, self._open_timeout_s, self._tls
        )
        try:
            return socket, await _start(socket, protocol)
        except BaseException:
            await socket.close()
            raise

    async def redial(
        self, protocol: ClientProtocol, resume_s: float
    ) -> tuple[ClientConnection, Started]:
        """Resume the session on a new connection, retrying for ``resume_s`` seconds.

        Raises:
            SessionError: If the session cannot be resumed.
        """
        deadline_s = time.monotonic() + resume_s
        ceiling_s = RETRY_INITIAL_S
        while True:
            try:
                return await self.dial(protocol)
            except (SessionLostError, _RetryableError, ServerBusyError) as error:
                # Exponential backoff with jitter, so that a crowd of clients spreads out.
                delay_s = random.uniform(ceiling_s / 2, ceiling_s)
                ceiling_s = min(2 * ceiling_s, RETRY_MAX_S)
                if isinstance(error, ServerBusyError):
                    delay_s += error.retry_after_s or 0.0
                if time.monotonic() + delay_s > deadline_s:
                    message = f"not resumed within {resume_s:g} s: {error}"
                    raise SessionLostError(message) from error
            await asyncio.sleep(delay_s)


@contextlib.asynccontextmanager
async def connect(
    url: str = DEFAULT_URL,
    *,
    token: str | None = None,
    mode: Mode = "auto",
    sample_rate_hz: int = 16_000,
    model: str | None = None,
    language: str | None = None,
    hotwords: Sequence[str] = (),
    partials: bool = False,
    speakers: bool = False,
    session_id: str | None = None,
    user_id: str | None = None,
    binary: bool = True,
    headers: Mapping[str, str] | None = None,
    resume_s: float = RESUME_S,
    open_timeout_s: float = OPEN_TIMEOUT_S,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Session]:
    """Connect to ``url`` and start a session; close the connection on exit.

    When the connection breaks, the client connects again, sends the audio that the server has not
    received, of the latest 64 MiB, and continues. Each segment is received once.

    Args:
        url: Address of the server, such as ``host:8080``: see ``asr_client.addresses``.
        token: Access token, if the server requires one; ``ValueError`` if no header can hold it.
        mode: How the server reads chunks: ``auto``, ``stream`` or ``chunk``.
        sample_rate_hz: Sample rate of raw PCM, 8,000 to 48,000. Encoded files state their own.
        model: Name of one of the server's models; by default the server chooses by language.
        language: Such as ``zh`` or ``en``, for models that use it.
        hotwords: Words that the model should prefer, for models that use them.
        partials: Also receive partial results, as ``PartialResult`` among ``events()``.
        speakers: Segments have a ``speaker``, if the server has a speaker model.
        session_id: Identifier of the session; a random UUID by default.
        user_id: Name stored with the session.
        binary: Send chunks as binary frames; otherwise as JSON with base64.
        headers: Additional headers of the WebSocket handshake.
        resume_s: Time for attempts to resume after a lost connection, in seconds; 0: none.
        open_timeout_s: Limit on the opening of a connection, in seconds.
        tls: Trusted certificates for ``wss``; by default the system's, or ``SSL_CERT_FILE``.

    Raises:
        ServerBusyError: If the server has no capacity; see its ``retry_after_s``.
        UnreachableError: If no connection can be opened.
        SessionError: If the server refuses the connection, or does not start the session.
    """
    start = start_fields(
        session_id or str(uuid.uuid4()),
        user_id=user_id,
        mode=mode,
        sample_rate_hz=sample_rate_hz,
        model=model,
        language=language,
        hotwords=hotwords,
        partials=partials,
        speakers=speakers,
    )
    chunks = ReplayBuffer()
    protocol = ClientProtocol(start, chunks, binary=binary)
    dialer = _Dialer(url, {**(headers or {}), **authorization(token)}, open_timeout_s, tls)
    socket, started = await dialer.dial(protocol)
    session = Session(protocol, chunks, started)
    running = asyncio.create_task(session._run(socket, dialer, resume_s))
    try:
        yield session
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await socket.close()


def authorization(token: str | None) -> dict[str, str]:
    """Return the HTTP headers that carry ``token``; none without one.

    Raises:
        ValueError: If it cannot be part of a header. The message does not contain it.
    """
    token = (token or "").strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError(
            "the access token contains a line break, another control character, or one that is "
            "not ASCII"
        )
    return {"Authorization": f"Bearer {token}"} if token else {}


async def _open(
    url: str, headers: Mapping[str, str] | None, timeout_s: float, tls: ssl.SSLContext | None
) -> ClientConnection:
    # Without ``ssl`` the scheme of the address decides.
    options: dict[str, Any] = {} if tls is None else {"ssl": tls}
    try:
        return await websockets.connect(
            url,
            additional_headers=headers,
            compression=None,
            max_size=MESSAGE_BYTES_MAX,
            open_timeout=timeout_s,
            proxy=None if urlsplit(url).hostname in LOOPBACK else True,
            **options,
        )
    except websockets.InvalidStatus as error:
        response = error.response
        message = message_of(response.body or b"", response.reason_phrase)
        retry_after = response.headers.get("Retry-After")
        raise refusal(response.status_code, message, retry_after) from error
    except ValueError as error:
        raise SessionError(f"cannot connect to {url}: {reason_of(error)}") from error
    except TimeoutError as error:
        raise UnreachableError(
            f"cannot connect to {url}: no answer within {timeout_s:g} s"
        ) from error
    except (OSError, websockets.WebSocketException) as error:
        raise UnreachableError(f"cannot connect to {url}: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return in plain words the reason why no connection was opened."""
    # Of several addresses, as localhost has, asyncio joins the messages into one.
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "nothing listens on this port"
    if isinstance(error, websockets.InvalidMessage | EOFError):
        return "what listens on this port is no WebSocket server, or needs TLS (wss://)"
    if isinstance(error, websockets.InvalidURI):
        return f"the server redirects to {error.uri}; use that address"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "what listens on this port has no TLS; use ws:// or http://"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message
        return (
            f"its certificate is not trusted ({reason}); SSL_CERT_FILE names a file of trusted ones"
        )
    return str(error) or "what listens on this port closes the connection"


async def _start(socket: ClientConnection, protocol: ClientProtocol) -> Started:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await socket.send(protocol.start_message())
            event = protocol.receive(await socket.recv())
    except TimeoutError as error:
        message = f"the server did not answer the start within {START_TIMEOUT_S:g} s"
        raise SessionLostError(message) from error
    except websockets.ConnectionClosed as error:
        reason = error.rcvd.reason if error.rcvd is not None else ""
        message = f"the server closed the connection at the start: {reason or error}"
        raise SessionLostError(message) from error
    if isinstance(event, Problem):
        failure = _RetryableError if event.code == RESUME_UNAVAILABLE else SessionError
        raise failure(f"{event.code}: {event.message}")
    if not isinstance(event, Started):
        raise SessionError(f"the server did not start the session: {type(event).__name__}")
    return event
