"""Core: a session of the native protocol: the messages to send, and the received events.

A session outlives its connections. On each connection, send ``start_message()`` first, pass every
received message to ``receive()``, send the messages that ``next_message()`` returns, and call
``connection_lost()`` when the connection ends. After ``Started``, ``next_message()`` continues with
the chunk that the server expects.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlencode, urlsplit

from asr_client.events import (
    Acknowledged,
    Event,
    FinalResult,
    Problem,
    Segment,
    Started,
    parse_event,
)
from asr_client.exceptions import SessionError, SessionLostError

Mode = Literal["auto", "stream", "chunk"]
"""How the server reads chunks. ``auto``: raw PCM, slices of one encoded file, or whole files.
``stream``: one stream of audio. ``chunk``: each chunk is one utterance."""

REPLAY_BYTES_MAX = 64 << 20
"""Audio kept for resumption. Beyond this the oldest chunks are dropped. If the server asks for a
dropped one, because the session's gateway was killed, the session ends with ``SessionLostError``.
"""
RESUMABLE_CLOSE_CODES: Final = frozenset({1001, 1005, 1006, 1011, 1012, 1013})
"""WebSocket close codes (RFC 6455, 7.4.1) after which the session can be resumed: going away, no
code, abnormal closure, internal error, service restart, try again later."""
RESUME_UNAVAILABLE: Final = "resume_unavailable"
"""Error code of a session that cannot be resumed at the moment: try again."""


class Chunks(Protocol):
    """Audio of a session by chunk index."""

    def __len__(self) -> int:
        """Return the number of chunks so far, dropped ones included."""

    def __getitem__(self, index: int) -> bytes:
        """Return a chunk; raise ``LookupError`` if it is not available."""


class ReplayBuffer:
    """The latest chunks of a session, up to ``bytes_max`` bytes together."""

    def __init__(self, bytes_max: int = REPLAY_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0

    def append(self, audio: bytes) -> None:
        """Add the next chunk; drop the oldest ones if the buffer is full."""
        self._kept.append(audio)
        self._bytes += len(audio)
        while self._bytes > self._bytes_max and len(self._kept) > 1:
            self._bytes -= len(self._kept.popleft())
            self._dropped += 1

    def __len__(self) -> int:
        return self._dropped + len(self._kept)

    def __getitem__(self, index: int) -> bytes:
        if not self._dropped <= index < len(self):
            raise LookupError(f"chunk {index} is not kept")
        return self._kept[index - self._dropped]


class ClientProtocol:
    """One session over any number of connections.

    Args:
        start: Fields of the ``start`` message, see ``start_fields()``.
        chunks: The session's audio. Chunks may be added at any time.
        binary: Send chunks as binary frames; otherwise as JSON with base64.
    """

    def __init__(self, start: Mapping[str, Any], chunks: Chunks, *, binary: bool) -> None:
        self.session_id: str = start["session_id"]
        self.resume_token: str | None = None
        """Secret with which the session can be resumed; ``None`` before ``Started``."""
        self.acknowledged_chunks = 0
        """Chunks that the server has received."""
        self.sent_chunks = 0
        """Chunks sent on this connection, or received by the server before it."""
        self.received_segments = 0
        """Segments received, failed ones included."""
        self.repeated_segments = 0
        """Segments received twice, which the protocol forbids. They are dropped."""
        self.final: FinalResult | None = None
        self.finishing = False
        self._start = dict(start)
        self._chunks = chunks
        self._binary = binary
        self._connected = False
        self._finish_sent = False
        self._restarted = False

    @property
    def unacknowledged_chunks(self) -> int:
        return self.sent_chunks - self.acknowledged_chunks

    def url(self, url: str) -> str:
        """Return the URL of the next connection, given the server's ``url``.

        A session to be resumed is named in the query, because a server without capacity for new
        sessions still admits it; so is the model of a new one, whose capacity counts.
        """
        query = {"model": self._start["model"]} if "model" in self._start else {}
        if self.resume_token is not None:
            query["resume"] = self.session_id
        if not query:
            return url
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"

    def start_message(self) -> str:
        """Return the first message of a connection: start the session, or resume it."""
        fields = {"action": "start", **self._start}
        if self.resume_token is not None:
            fields["resume_token"] = self.resume_token
            fields["next_segment_index"] = self.received_segments
        return json.dumps(fields)

    def finish(self) -> None:
        """Mark the end of the audio; ``next_message()`` reports it after the last chunk."""
        self.finishing = True

    def next_message(self) -> str | bytes | None:
        """Return the next message to send, or ``None`` if there is none at the moment.

        Raises:
            SessionLostError: If the server needs a chunk that was dropped.
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
        """Return the event in a message, or ``None`` for a segment that was received before.

        Raises:
            SessionError: If the server violates the protocol.
        """
        event = parse_event(message)
        if isinstance(event, Started):
            self._started(event)
        elif isinstance(event, FinalResult):
            self.final = event
        elif isinstance(event, Acknowledged):
            self._acknowledge(event.chunk_index)
        elif isinstance(event, Segment | Problem):
            # An error about a chunk also acknowledges it.
            if isinstance(event, Problem) and event.chunk_index is not None:
                self._acknowledge(event.chunk_index)
            last = event.segment_index
            first = event.first_segment_index if isinstance(event, Segment) else last
            if last is not None and not self._is_next(last if first is None else first, last):
                return None
        return event

    def _started(self, event: Started) -> None:
        self._restarted = self.resume_token is not None and not event.resumed
        self.resume_token = event.resume_token
        self.sent_chunks = self.acknowledged_chunks = event.next_chunk_index
        self._connected = True

    def _acknowledge(self, chunk_index: int) -> None:
        # Just after resumption, the server may still acknowledge chunks of the last connection.
        known = min(chunk_index + 1, self.sent_chunks)
        self.acknowledged_chunks = max(self.acknowledged_chunks, known)

    def _is_next(self, first: int, last: int) -> bool:
        if last < self.received_segments:
            # A session that started again from its first chunk may repeat its segments.
            self.repeated_segments += not self._restarted
            return False
        if first > self.received_segments:
            raise SessionError(f"segment {self.received_segments} is missing")
        self.received_segments = last + 1
        return True

    def connection_lost(self) -> None:
        """Stop sending until the session is started on the next connection."""
        self._connected = False
        self._finish_sent = False


def start_fields(
    session_id: str,
    *,
    user_id: str | None = None,
    mode: Mode = "auto",
    sample_rate_hz: int = 16_000,
    model: str | None = None,
    language: str | None = None,
    hotwords: Sequence[str] = (),
    partials: bool = False,
    speakers: bool = False,
) -> dict[str, Any]:
    """Return the fields of a ``start`` message, only the ones that are set."""
    optional = {
        "user_id": user_id,
        "model": model,
        "language": language,
        "speakers": speakers or None,
        "hotwords": list(hotwords) or None,
    }
    return {
        "session_id": session_id,
        "mode": mode,
        "sample_rate": sample_rate_hz,
        "partials": partials,
        **{name: value for name, value in optional.items() if value is not None},
    }
