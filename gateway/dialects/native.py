"""Core: the native protocol of ``/ws/asr`` (docs/protocol.md): JSON or binary in, JSON out.

Only translates; the session decides what a message means.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import structs, to_builtins

from gateway.audio.wav import DeclaredAudio
from gateway.dialects import base64_audio
from gateway.dialects.dialect import Dialect, MessageError
from gateway.dialects.fields import (
    INDEX_MAX,
    Hotwords,
    Index,
    Language,
    Model,
    ResumeToken,
    SampleRateHz,
    SessionId,
    UserId,
    as_text,
    shown_names,
    storable,
    storable_hotwords,
)
from gateway.dialects.strict_json import parse_object
from gateway.session import events as e
from wire.messages import SESSION_ID_CHARS_MAX


class StartMessage(msgspec.Struct, frozen=True, tag_field="action", tag="start"):
    """Begin or resume a session."""

    session_id: SessionId
    user_id: UserId | None = None
    mode: e.Mode = "auto"
    sample_rate: SampleRateHz = 16_000
    encoding: Literal["pcm_s16le"] | None = None
    model: Model | None = None
    language: Language | None = None
    hotwords: Hotwords = ()
    partials: bool = False
    speakers: bool = False
    punctuation: bool | None = None
    itn: bool | None = None
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


_START_FIELDS = frozenset({"action", *StartMessage.__struct_fields__})
_CHUNK_FIELDS = frozenset({"action", *ChunkMessage.__struct_fields__})
_VALUES = {
    "action": "start, chunk or finish",
    "encoding": "pcm_s16le",
    "mode": "auto, stream or chunk",
    "session_id": f"1 to {SESSION_ID_CHARS_MAX} letters, digits or . _ : -, first no sign",
}
"""Values of fields whose refusal by msgspec does not name them."""
_PLAIN_CHUNK = msgspec.json.Decoder(_PlainChunk | FinishMessage)
"""A union, because msgspec accepts a single class without its ``action``."""
LARGE_CHARS = 1 << 20
"""Longer audio of a message is decoded in pieces of this length."""
_AUDIO_KEY = '"audio_data"'
_PLAIN_CHUNK_QUOTES = 14
"""Quotes of four keys and three strings. A repeated key would add more."""


class Native(Dialect):
    """The native protocol as a ``Dialect``. Its state does not change."""

    name = "native"
    resumable = True
    may_start_again = True

    def parse(self, message: str | bytes) -> Sequence[e.ClientEvent]:
        return (parse(message),)

    def encode(self, answer: e.Answer) -> Sequence[str]:
        return (encode(answer),)


def parse(message: str | bytes) -> e.ClientEvent:
    """Translate one WebSocket message of the client. Raises ``MessageError``."""
    # Another JSON object is a file that somebody sends for audio.
    message = as_text(message, "action")
    if isinstance(message, bytes):
        return e.Chunk(data=message)
    if len(message) > LARGE_CHARS and (chunk := _parse_large(message)) is not None:
        return chunk
    # Most messages are chunks in this form. The general way takes 60 % longer.
    try:
        plain = _PLAIN_CHUNK.decode(message)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return _parse_any(message)
    quotes = message.count('"')
    if not isinstance(plain, _PlainChunk) or quotes != _PLAIN_CHUNK_QUOTES or "\\" in message:
        return _parse_any(message)
    return e.Chunk(
        data=plain.audio_data, chunk_index=plain.chunk_index, session_id=plain.session_id
    )


def _parse_large(text: str) -> e.ClientEvent | None:
    """Translate a chunk in the usual form. It decodes the audio piece by piece, so that in a thread
    it gives way to the event loop. None: it has another form."""
    key = text.find(_AUDIO_KEY)
    begin = text.find('"', key + len(_AUDIO_KEY)) + 1
    end = text.find('"', begin)
    if key < 0 or end < 0:
        return None
    chunk = parse(text[:begin] + text[end:])
    if not isinstance(chunk, e.Chunk) or chunk.data:
        return None
    pieces: list[bytes] = []
    try:
        for at in range(begin, end, LARGE_CHARS):
            piece = text[at : min(end, at + LARGE_CHARS)]
            pieces.append(binascii.a2b_base64(piece, strict_mode=True))
    except ValueError:
        return None
    if any(len(piece) != LARGE_CHARS // 4 * 3 for piece in pieces[:-1]):
        return None  # There is padding before the end.
    return structs.replace(chunk, data=b"".join(pieces))


def _parse_any(text: str) -> e.ClientEvent:
    # Clients in many languages send null for a field that is not set.
    fields = {name: value for name, value in parse_object(text).items() if value is not None}
    try:
        message = _convert(fields)
    except UnicodeEncodeError as error:
        raise MessageError("a string has a lone surrogate") from error
    if isinstance(message, StartMessage):
        return _start(message, fields)
    if isinstance(message, FinishMessage):
        return e.Finish(session_id=message.session_id)
    return e.Chunk(
        data=message.audio_data,
        chunk_index=message.chunk_index,
        session_id=message.session_id,
        ignored_fields=shown_names(name for name in fields if name not in _CHUNK_FIELDS),
    )


def _convert(fields: dict[str, Any]) -> StartMessage | ChunkMessage | FinishMessage:
    try:
        return msgspec.convert(fields, StartMessage | ChunkMessage | FinishMessage)
    except msgspec.ValidationError as error:
        problem = _message_error(str(error), fields)
        if problem.code != "bad_base64":
            raise problem from error
    try:
        fields["audio_data"] = base64_audio.decode(fields["audio_data"], "audio_data")
    except MessageError as error:
        error.chunk_index = problem.chunk_index
        raise
    return _convert(fields)


def _start(message: StartMessage, fields: dict[str, Any]) -> e.Start:
    token = message.resume_token
    unknown = [name for name in fields if name not in _START_FIELDS]
    # The rate of 16 kHz may be a default, not a declaration of the client.
    is_explicit = "sample_rate" in fields or message.mode == "stream"
    is_raw = message.encoding is not None and is_explicit
    if message.encoding is not None and not is_explicit:
        unknown.append("encoding (without sample_rate or mode stream)")
    return e.Start(
        session_id=message.session_id,
        user_id=storable(message.user_id or "", "user_id"),
        mode=message.mode,
        sample_rate_hz=message.sample_rate,
        model=storable(message.model or "", "model"),
        language=storable(message.language or "", "language"),
        hotwords=storable_hotwords(message.hotwords, "hotwords"),
        partials=message.partials,
        result_per_file=message.mode == "auto",
        speakers=message.speakers,
        punctuation=message.punctuation,
        itn=message.itn,
        resume_token=None if token is None else storable(token, "resume_token"),
        next_segment_index=message.next_segment_index,
        declared_raw=is_raw,
        declared=DeclaredAudio(sample_rate_hz=message.sample_rate, encoding="linear16")
        if is_raw
        else None,
        ignored_fields=shown_names(unknown),
    )


def _message_error(problem: str, fields: dict[str, Any]) -> MessageError:
    """``problem`` is msgspec's, such as "Expected `str`, got `int` - at `$.session_id`"."""
    text, _, path = problem.partition(" - at `$.")
    name = path.rstrip("`")
    if name in _VALUES and not text.startswith("Expected `str`, got"):
        text = f"must be {_VALUES[name]}"
    if name != "audio_data":
        return MessageError(f"{name}: {text}" if name else text)
    # Fields are checked in the client's order: the index may be missing or invalid as well.
    index = fields.get("chunk_index")
    if type(index) is not int or not 0 <= index <= INDEX_MAX:
        index = None
    if isinstance(fields["audio_data"], str):
        return MessageError(f"{name}: {text}", "bad_base64", index)
    return MessageError(f"{name}: {text}", chunk_index=index)


# ------------------------------------------------------------------------------------------ answers

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


HEADS: dict[type, dict[str, str]] = {
    e.Started: {"type": "ack", "status": "session_started"},
    e.Resumed: {"type": "ack", "status": "session_resumed"},
    e.PartialText: {"type": "partial_result"},
    e.SegmentText: {"type": "chunk_result"},
    e.SilentFile: {"type": "chunk_result"},
    e.Finished: {"type": "final_result"},
    e.Problem: {"type": "error"},
}
"""First fields of the answers' messages."""


_RECOGNISED = ("language", "emotion", "events")
"""Fields of a segment that are left out if the model does not know them."""


def encode(answer: e.Answer) -> str:
    """Return ``answer`` as a JSON message. Fields without a value are omitted."""
    if isinstance(answer, e.ChunkReceived):  # The most frequent one. It needs no escapes.
        return f'{{"type":"ack","status":"received","chunk_index":{answer.chunk_index}}}'
    fields = to_builtins(answer)
    if isinstance(answer, e.PartialText):
        fields = {"segment_index": answer.segment_index, "text": answer.text}
    elif isinstance(answer, e.SegmentText):
        del fields["tokens"]  # Not in this protocol.
        for name in _RECOGNISED:
            fields[name] = fields[name] or None
    elif isinstance(answer, e.Finished):
        fields["duration"] = fields.pop("duration_ms") / 1000
        fields["warnings"] = fields["warnings"] or None
    said = {name: value for name, value in fields.items() if value is not None}
    return _ENCODER.encode(HEADS[type(answer)] | said)
