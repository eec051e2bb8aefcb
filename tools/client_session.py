"""SANS-IO core of a client's session of the native protocol: what to send, and what was told.

A session outlives its connections. Feed ``receive`` what arrives, send what ``next_message`` gives,
say ``lost`` when a connection ends and send ``start_message`` first on the next one: the server
then says from which chunk to go on. Both ``tools.client`` and the load generator are built on it.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlencode, urlsplit

Mode = Literal["auto", "stream", "chunk"]

REPLAY_BYTES_MAX = 64 << 20
"""Audio kept for a resumed session; beyond it the oldest is forgotten, and a server that needs it
(because the session's gateway was killed) cannot be given it: ``SessionLostError``."""


class SessionError(Exception):
    """The session cannot go on; the message says why."""


class SessionLostError(SessionError):
    """The connection ended before the final result, and the session could not be resumed."""


@dataclass(frozen=True, slots=True)
class Started:
    """The server takes chunks from ``next_chunk_index`` on. ``resumed`` is false for a new
    session, which a resumed one can become if its gateway died before anything was stored."""

    session_id: str
    resume_token: str
    next_chunk_index: int
    resumed: bool = False


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
    """The server could not do something; the session goes on unless it closes it. One with a
    ``segment_index`` stands in the place of that segment's text."""

    code: str
    message: str
    chunk_index: int | None
    segment_index: int | None
    expected_chunk_index: int | None


Event = Started | Acknowledged | PartialText | ChunkText | FinalText | Problem


def parse_event(message: str | bytes) -> Event:
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
        return Started(
            fields["session_id"],
            fields["resume_token"],
            fields["next_chunk_index"],
            resumed=fields["status"] == "session_resumed",
        )
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


class Chunks(Protocol):
    """The session's audio by index: kept as it comes (``ChunkLog``), or made again when asked."""

    def __len__(self) -> int:
        """Chunks there are so far, forgotten ones included."""

    def __getitem__(self, index: int) -> bytes:
        """Raises ``LookupError`` for a chunk that is forgotten."""


class ChunkLog:
    """The latest chunks, up to ``bytes_max`` together."""

    def __init__(self, bytes_max: int = REPLAY_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: deque[bytes] = deque()
        self._bytes = 0
        self._forgotten = 0

    def append(self, audio: bytes) -> None:
        self._kept.append(audio)
        self._bytes += len(audio)
        while self._bytes > self._bytes_max and len(self._kept) > 1:
            self._bytes -= len(self._kept.popleft())
            self._forgotten += 1

    def __len__(self) -> int:
        return self._forgotten + len(self._kept)

    def __getitem__(self, index: int) -> bytes:
        if not self._forgotten <= index < len(self):
            raise LookupError(f"chunk {index} is not kept")
        return self._kept[index - self._forgotten]


class ClientSession:
    """One session over any number of connections.

    ``start`` holds the fields of the ``start`` message besides action and token. The caller's
    duties: send ``start_message`` first on each connection; after ``receive`` gave ``Started``,
    send what ``next_message`` gives; call ``lost`` when the connection ends.
    """

    def __init__(self, start: Mapping[str, Any], chunks: Chunks, *, binary: bool) -> None:
        self.session_id: str = start["session_id"]
        self.resume_token: str | None = None
        self.acknowledged_chunks = 0
        """Chunks this connection's server has for certain."""
        self.sent_chunks = 0
        """Chunks given to this connection, or had by the server when it began."""
        self.told_segments = 0
        """Segments whose text, or problem, was told."""
        self.repeated_segments = 0
        """Segments that were told again, against the protocol; they are dropped."""
        self.final: FinalText | None = None
        self.finishing = False
        self._start = dict(start)
        self._chunks = chunks
        self._binary = binary
        self._connected = False
        self._finish_sent = False
        self._begun_anew = False

    @property
    def unacknowledged_chunks(self) -> int:
        return self.sent_chunks - self.acknowledged_chunks

    def address(self, url: str) -> str:
        """Where to connect: ``url``, with the session that we come back to, so that a server with
        no room for new ones lets us in."""
        if self.resume_token is None:
            return url
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode({'resume': self.session_id})}"

    def start_message(self) -> str:
        """The first message of a connection; it resumes the session if one was started."""
        fields = {"action": "start", **self._start}
        if self.resume_token is not None:
            fields |= {"resume_token": self.resume_token, "next_segment_index": self.told_segments}
        return json.dumps(fields)

    def finish(self) -> None:
        """No more audio comes: after the last chunk ``next_message`` says so to the server."""
        self.finishing = True

    def next_message(self) -> str | bytes | None:
        """What to send now; None if there is nothing until something happens.

        Raises:
            SessionLostError: if the server needs audio that is not kept any more.
        """
        if not self._connected:
            return None
        if self.sent_chunks < len(self._chunks):
            return self._next_chunk()
        if self.finishing and not self._finish_sent:
            self._finish_sent = True
            return json.dumps({"action": "finish", "session_id": self.session_id})
        return None

    def _next_chunk(self) -> str | bytes:
        index = self.sent_chunks
        try:
            audio = self._chunks[index]
        except LookupError as error:
            raise SessionLostError(f"the server needs audio from chunk {index} on") from error
        self.sent_chunks += 1
        if self._binary:
            return audio
        fields = {"action": "chunk", "session_id": self.session_id, "chunk_index": index}
        return json.dumps({**fields, "audio_data": base64.b64encode(audio).decode()})

    def receive(self, message: str | bytes) -> Event | None:
        """The event in a message of the server, or None for a segment that was told before.

        Raises:
            SessionError: if the server breaks the protocol.
        """
        event = parse_event(message)
        if isinstance(event, Started):
            self._begin(event)
        elif isinstance(event, FinalText):
            self.final = event
        elif isinstance(event, Acknowledged):
            self._acknowledge(event.chunk_index)
        elif isinstance(event, ChunkText | Problem):
            # A problem with a chunk answers for it as an acknowledgement does.
            if isinstance(event, Problem) and event.chunk_index is not None:
                self._acknowledge(event.chunk_index)
            if event.segment_index is not None and not self._is_next(event.segment_index):
                return None
        return event

    def _begin(self, event: Started) -> None:
        self._begun_anew = self.resume_token is not None and not event.resumed
        self.resume_token = event.resume_token
        self.sent_chunks = self.acknowledged_chunks = event.next_chunk_index
        self._connected = True

    def _acknowledge(self, chunk_index: int) -> None:
        # Right after resuming, the last connection's chunks may still be acknowledged.
        known = min(chunk_index + 1, self.sent_chunks)
        self.acknowledged_chunks = max(self.acknowledged_chunks, known)

    def _is_next(self, segment_index: int) -> bool:
        if segment_index < self.told_segments:
            # A session that began anew tells from its beginning: that is no repetition.
            self.repeated_segments += not self._begun_anew
            return False
        if segment_index > self.told_segments:
            raise SessionError(f"segment {self.told_segments} is missing")
        self.told_segments += 1
        return True

    def lost(self) -> None:
        """The connection is gone."""
        self._connected = False
        self._finish_sent = False


def start_fields(
    session_id: str,
    *,
    user_id: str | None = None,
    mode: Mode = "auto",
    sample_rate_hz: int = 16_000,
    language: str | None = None,
    hotwords: Sequence[str] = (),
    partials: bool = False,
) -> dict[str, Any]:
    """Fields of a ``start`` message; those that are not given are left out."""
    start: dict[str, Any] = {
        "session_id": session_id,
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
    return start
