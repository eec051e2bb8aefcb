"""Messages of the server, as typed events."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asr_client.addresses import WEBSOCKET_PATH
from asr_client.exceptions import SessionError


@dataclass(frozen=True, slots=True)
class Started:
    """The session is started or resumed; the server expects chunk ``next_chunk_index`` next.

    A session that is resumed after its gateway died can start again from its first chunk, if none
    of its results was stored. ``resumed`` is false then, as it is for a new session.
    """

    session_id: str
    resume_token: str
    next_chunk_index: int
    resumed: bool = False
    model: str = ""
    """Name of the session's model."""
    warnings: tuple[str, ...] = ()
    """Options that the client requested and the server cannot provide."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The server has received all chunks up to and including ``chunk_index``."""

    chunk_index: int


@dataclass(frozen=True, slots=True)
class PartialResult:
    """Text of a segment that is still being spoken. The next result replaces it."""

    segment_index: int
    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    """Text of one utterance. Segments arrive in order.

    ``start_ms`` and ``end_ms`` count from the beginning of the audio. ``chunk_index`` is the chunk
    in which the utterance ends. ``speaker`` counts from 1 in order of appearance; None: unknown, or
    not asked for.
    """

    segment_index: int
    chunk_index: int
    start_ms: int
    end_ms: int
    text: str
    language: str | None = None
    """The detected language; ``None``: the model does not report it. The next fields likewise."""
    confidence: float | None = None
    emotion: str | None = None
    events: tuple[str, ...] = ()
    speaker: int | None = None
    first_segment_index: int | None = None
    """The first of several segments, which a chunk with one whole file has as one."""


@dataclass(frozen=True, slots=True)
class FinalResult:
    """Text of the whole session. ``stored``: it is committed to the server's database.

    ``speakers`` has the speaker of each segment, by its index, where some labels of segments are
    corrected; it is empty if speakers were not asked for.
    """

    text: str
    duration_s: float
    chunk_count: int
    stored: bool
    speakers: tuple[int | None, ...] = ()
    warnings: tuple[str, ...] = ()
    """Parts of the audio that were not used, such as all channels but the loudest."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The server reports an error; the session continues unless the server closes it.

    With a ``segment_index``, the segment failed and has no text. ``code`` is one of the error
    codes of the protocol, such as ``chunk_failed``.
    """

    code: str
    message: str
    chunk_index: int | None
    segment_index: int | None
    expected_chunk_index: int | None


_OF_SEGMENTS = dataclasses.fields(Segment)

Event = Started | Acknowledged | PartialResult | Segment | FinalResult | Problem


def parse_event(message: str | bytes) -> Event:
    """Parse one message of the server.

    Raises:
        SessionError: If the message is not part of the protocol.
    """
    try:
        return _event_of(json.loads(message))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SessionError(
            f"the server sent a message that is not of this protocol, whose path is "
            f"{WEBSOCKET_PATH}: {error!r}"
        ) from error


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
            model=fields.get("model", ""),
            warnings=_messages(fields),
        )
    if kind == "partial_result":
        return PartialResult(fields["segment_index"], fields["text"])
    if kind == "chunk_result" and "segment_index" not in fields:
        return Acknowledged(fields["chunk_index"])  # The file in this chunk is silent.
    if kind == "chunk_result":
        known = {each.name: fields[each.name] for each in _OF_SEGMENTS if each.name in fields}
        return Segment(**known | {"events": tuple(fields.get("events", ()))})
    if kind == "final_result":
        return FinalResult(
            text=fields["text"],
            duration_s=fields["duration"],
            chunk_count=fields["chunk_count"],
            stored=fields["stored"],
            speakers=tuple(fields.get("speakers", ())),
            warnings=_messages(fields),
        )
    if kind == "error":
        optional = ("chunk_index", "segment_index", "expected_chunk_index")
        return Problem(fields["code"], fields["message"], *(fields.get(key) for key in optional))
    raise ValueError(f"unknown type {kind!r}")


def _messages(fields: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(warning["message"] for warning in fields.get("warnings", ()))
