"""The native protocol of ``/ws/asr`` (docs/protocol.md): JSON or binary messages in, JSON out.

Only translates; the session decides what a message means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from gateway.dialects.dialect import MessageError
from gateway.dialects.fields import (
    Hotwords,
    Index,
    Language,
    ResumeToken,
    SampleRateHz,
    SessionId,
    UserId,
    storable,
    storable_hotwords,
)
from gateway.dialects.strict_json import parse_object
from gateway.session import events as e
from wire.messages import Lane


class StartMessage(msgspec.Struct, frozen=True, tag_field="action", tag="start"):
    """Begin or resume a session."""

    session_id: SessionId
    user_id: UserId | None = None
    mode: Literal["auto", "stream", "chunk"] = "auto"
    sample_rate: SampleRateHz = 16_000
    language: Language | None = None
    hotwords: Hotwords = ()
    partials: bool = False
    resume_token: ResumeToken | None = None
    next_segment_index: Index | None = None


class ChunkMessage(msgspec.Struct, frozen=True, tag_field="action", tag="chunk"):
    """Audio. In JSON ``audio_data`` is base64."""

    session_id: SessionId
    chunk_index: Index
    audio_data: bytes


class FinishMessage(msgspec.Struct, frozen=True, tag_field="action", tag="finish"):
    """The audio ends."""

    session_id: SessionId


class _PlainChunk(ChunkMessage, frozen=True, tag="chunk", forbid_unknown_fields=True):
    pass


_PLAIN_CHUNK = msgspec.json.Decoder(_PlainChunk)
_PLAIN_CHUNK_QUOTES = 14
"""Of four keys and three strings. With a key that is repeated there would be more."""


class Native:
    """The native protocol as a ``Dialect``. It keeps no state."""

    name = "native"
    resumable = True
    lane: Lane = "live"
    stays_open = False

    def parse(self, message: str | bytes) -> Sequence[e.ClientEvent]:
        return (parse(message),)

    def encode(self, answer: e.Answer) -> Sequence[str]:
        return (encode(answer),)


def parse(message: str | bytes) -> e.ClientEvent:
    """Translate one WebSocket message of the client.

    Raises:
        MessageError: with the code and the text of the error answer.
    """
    if isinstance(message, bytes):
        return e.Chunk(data=message, chunk_index=None, session_id=None)
    # Most messages are chunks in this form. The general way takes 60 % longer.
    try:
        chunk = _PLAIN_CHUNK.decode(message)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return _parse_any(message)
    if message.count('"') != _PLAIN_CHUNK_QUOTES or "\\" in message:
        return _parse_any(message)
    return e.Chunk(
        data=chunk.audio_data, chunk_index=chunk.chunk_index, session_id=chunk.session_id
    )


def _parse_any(text: str) -> e.ClientEvent:
    fields = parse_object(text)
    try:
        message: StartMessage | ChunkMessage | FinishMessage = msgspec.convert(
            fields, StartMessage | ChunkMessage | FinishMessage
        )
    except msgspec.ValidationError as error:
        raise _message_error(str(error), fields) from error
    if isinstance(message, StartMessage):
        return _start(message)
    if isinstance(message, FinishMessage):
        return e.Finish(session_id=message.session_id)
    return e.Chunk(
        data=message.audio_data, chunk_index=message.chunk_index, session_id=message.session_id
    )


def _start(message: StartMessage) -> e.Start:
    token = message.resume_token
    return e.Start(
        session_id=message.session_id,
        user_id=storable(message.user_id or "", "user_id"),
        mode=message.mode,
        sample_rate_hz=message.sample_rate,
        language=storable(message.language or "", "language"),
        hotwords=storable_hotwords(message.hotwords, "hotwords"),
        partials=message.partials,
        resume_token=None if token is None else storable(token, "resume_token"),
        next_segment_index=message.next_segment_index,
    )


def _message_error(problem: str, fields: dict[str, Any]) -> MessageError:
    """``problem`` is msgspec's, such as "Expected `str`, got `int` - at `$.session_id`"."""
    text, _, path = problem.partition(" - at `$.")
    name = path.rstrip("`")
    if name != "audio_data":
        return MessageError(f"{name}: {text}" if name else text)
    index = fields["chunk_index"]  # It is valid, because fields are checked in their order.
    if isinstance(fields["audio_data"], str):
        return MessageError(f"{name}: {text}", "bad_base64", index)
    return MessageError(f"{name}: {text}", chunk_index=index)


# ------------------------------------------------------------------------------------------ answers

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(answer: e.Answer) -> str:
    """The message that tells the client ``answer``."""
    if isinstance(answer, e.ChunkReceived):  # Most are; nothing in it needs to be escaped.
        return f'{{"type":"ack","status":"received","chunk_index":{answer.chunk_index}}}'
    return _ENCODER.encode(_ENCODERS[type(answer)](answer))


def _started(answer: e.Started) -> dict[str, Any]:
    return {
        "type": "ack",
        "status": "session_started",
        "session_id": answer.session_id,
        "resume_token": answer.resume_token,
        "next_chunk_index": answer.next_chunk_index,
    }


def _resumed(answer: e.Resumed) -> dict[str, Any]:
    return {
        "type": "ack",
        "status": "session_resumed",
        "session_id": answer.session_id,
        "resume_token": answer.resume_token,
        "next_chunk_index": answer.next_chunk_index,
        "next_segment_index": answer.next_segment_index,
    }


def _partial(answer: e.PartialText) -> dict[str, Any]:
    return {
        "type": "partial_result",
        "segment_index": answer.segment_index,
        "text": answer.text,
    }


def _segment(answer: e.SegmentText) -> dict[str, Any]:
    return {
        "type": "chunk_result",
        "session_id": answer.session_id,
        "chunk_index": answer.chunk_index,
        "segment_index": answer.segment_index,
        "start_ms": answer.start_ms,
        "end_ms": answer.end_ms,
        "text": answer.text,
    }


def _finished(answer: e.Finished) -> dict[str, Any]:
    return {
        "type": "final_result",
        "session_id": answer.session_id,
        "text": answer.text,
        "duration": answer.duration_ms / 1000,
        "chunk_count": answer.chunk_count,
        "stored": answer.stored,
    }


def _problem(answer: e.Problem) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "type": "error",
        "code": answer.code,
        "message": answer.message,
    }
    if answer.chunk_index is not None:
        encoded["chunk_index"] = answer.chunk_index
    if answer.expected_chunk_index is not None:
        encoded["expected_chunk_index"] = answer.expected_chunk_index
    if answer.segment_index is not None:
        encoded["segment_index"] = answer.segment_index
    return encoded


_ENCODERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    e.Started: _started,
    e.Resumed: _resumed,
    e.PartialText: _partial,
    e.SegmentText: _segment,
    e.Finished: _finished,
    e.Problem: _problem,
}
