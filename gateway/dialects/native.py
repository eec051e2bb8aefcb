"""The native protocol of ``/ws/asr`` (docs/protocol.md): JSON and binary
frames in, JSON out. Only translates: what a message means is the session's to decide."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from gateway.dialects.dialect import ClientEvent, MessageError
from gateway.dialects.strict_json import parse_object, storable
from gateway.session import events as e
from wire.messages import Lane

SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""What a session id may look like; a UUID is usual."""
USER_ID_CHARS_MAX = 128
LANGUAGE_CHARS_MAX = 32
HOTWORDS_MAX = 200
HOTWORD_CHARS_MAX = 64
RESUME_TOKEN_CHARS_MAX = 128
SAMPLE_RATE_HZ_MIN = 8_000
SAMPLE_RATE_HZ_MAX = 48_000
CHUNK_INDEX_MAX = (1 << 31) - 1


class Native:
    """The native protocol as a ``Dialect``: nothing to be remembered."""

    name = "native"
    resumable = True
    lane: Lane = "live"
    stays_open = False

    def parse(self, message: str | bytes) -> Sequence[ClientEvent]:
        return (parse(message),)

    def encode(self, answer: e.Answer) -> Sequence[str]:
        return (encode(answer),)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def parse(message: str | bytes) -> ClientEvent:
    """One WebSocket message from the client.

    Raises:
        MessageError: with the error answer's code and text.
    """
    if isinstance(message, bytes):
        return e.Chunk(data=message, chunk_index=None, session_id=None)
    fields = parse_object(message)
    action = fields.get("action")
    if action == "chunk":
        return _parse_chunk(fields)
    if action == "start":
        return _parse_start(fields)
    if action == "finish":
        return e.Finish(session_id=_session_id(fields))
    raise MessageError("action must be start, chunk or finish")


def encode(answer: e.Answer) -> str:
    """``answer`` as the client reads it."""
    return _ENCODER.encode(_ENCODERS[type(answer)](answer))


# ------------------------------------------------------------------------------------------- fields


def _string(fields: dict[str, Any], name: str, chars_max: int, default: str | None = None) -> str:
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise MessageError(f"{name} must be a string")
    if len(value) > chars_max:
        raise MessageError(f"{name} is longer than {chars_max} characters")
    return storable(value, name)


def _session_id(fields: dict[str, Any]) -> str:
    value = fields.get("session_id")
    if not isinstance(value, str) or not SESSION_ID.fullmatch(value):
        raise MessageError("session_id must be 1 to 128 letters, digits or . _ : -")
    return value


def _integer(fields: dict[str, Any], name: str, low: int, high: int, default: int | None) -> int:
    value = fields.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise MessageError(f"{name} must be an integer from {low} to {high}")
    return value


def _parse_start(fields: dict[str, Any]) -> e.Start:
    mode = fields.get("mode", "auto")
    if mode not in ("auto", "stream", "chunk"):
        raise MessageError("mode must be auto, stream or chunk")
    partials = fields.get("partials", False)
    if type(partials) is not bool:
        raise MessageError("partials must be true or false")
    hotwords = fields.get("hotwords", [])
    if not isinstance(hotwords, list) or len(hotwords) > HOTWORDS_MAX:
        raise MessageError(f"hotwords must be a list of at most {HOTWORDS_MAX} strings")
    token = fields.get("resume_token")
    if token is not None:
        token = _string(fields, "resume_token", RESUME_TOKEN_CHARS_MAX)
    return e.Start(
        session_id=_session_id(fields),
        user_id=_string(fields, "user_id", USER_ID_CHARS_MAX, ""),
        mode=mode,
        sample_rate_hz=_integer(
            fields, "sample_rate", SAMPLE_RATE_HZ_MIN, SAMPLE_RATE_HZ_MAX, 16_000
        ),
        language=_string(fields, "language", LANGUAGE_CHARS_MAX, ""),
        hotwords=tuple(
            _string({"hotword": word}, "hotword", HOTWORD_CHARS_MAX) for word in hotwords
        ),
        partials=partials,
        resume_token=token,
        next_segment_index=_next_segment_index(fields),
    )


def _next_segment_index(fields: dict[str, Any]) -> int | None:
    if fields.get("next_segment_index") is None:
        return None
    return _integer(fields, "next_segment_index", 0, CHUNK_INDEX_MAX, None)


def _parse_chunk(fields: dict[str, Any]) -> e.Chunk:
    session_id = _session_id(fields)
    index = _integer(fields, "chunk_index", 0, CHUNK_INDEX_MAX, None)
    audio = fields.get("audio_data")
    if not isinstance(audio, str):
        raise MessageError("audio_data must be a base64 string", chunk_index=index)
    try:
        data = base64.b64decode(audio.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise MessageError("audio_data is not base64", "bad_base64", index) from error
    return e.Chunk(data=data, chunk_index=index, session_id=session_id)


# ------------------------------------------------------------------------------------------ answers


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


def _received(answer: e.ChunkReceived) -> dict[str, Any]:
    return {"type": "ack", "status": "received", "chunk_index": answer.chunk_index}


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
    e.ChunkReceived: _received,
    e.PartialText: _partial,
    e.SegmentText: _segment,
    e.Finished: _finished,
    e.Problem: _problem,
}
