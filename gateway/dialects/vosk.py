"""Core: the protocol of vosk-server (docs/dialects.md). Lockstep: clients wait for exactly one
reply to each audio, ``eof`` and ``reset`` message, so each reply has the latest result."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import structs

from gateway.audio.wav import DeclaredAudio
from gateway.dialects.dialect import Dialect, MessageError
from gateway.dialects.fields import (
    MODEL_CHARS_MAX,
    as_text,
    confidence_or_default,
    in_range,
    shown_names,
    storable,
    storable_hotwords,
    truth,
)
from gateway.dialects.strict_json import parse_object, to_json
from gateway.session import events as e
from gateway.session.recognised import confidence
from gateway.session.transcript import join_texts
from wire.messages import Token

_CONFIG = frozenset(
    {
        *("sample_rate", "words", "max_alternatives", "phrase_list", "model"),
        *("punctuation", "itn"),
    }
)
_PARTS = frozenset({"config", "eof", "reset"})
"""Fields of a message, at least one of which it must have."""
GRAMMAR = e.SessionWarning(
    code="grammar_open", message="phrase_list is used as hotwords: other words are recognised, too"
)
LATE = e.SessionWarning(
    code="setting_late", message="config: after the first audio it has an effect from reset on"
)
ONE_ALTERNATIVE = e.SessionWarning(
    code="value_limited", message="max_alternatives: there is always one alternative"
)


class Vosk(Dialect):
    """``new_session_id`` makes the session ids, which the protocol does not have.

    Chunks have an index, so the session acknowledges each of them, and the acknowledgement becomes
    the reply. ``Finished`` becomes the reply to ``eof`` and ``reset``.
    """

    name = "vosk"

    def __init__(self, new_session_id: Callable[[], str]) -> None:
        self._new_session_id = new_session_id
        self._start = e.Start(session_id="", mode="stream", sample_rate_hz=8_000, partials=True)
        """The start of the next session, but for its id."""
        self._with_words = True
        self._with_alternatives = False
        self._session_id = ""
        """Empty: the next audio begins a session."""
        self._next_chunk_index = 0
        self._partial = ""
        self._next_segment_index = 0
        self._pending: deque[e.SegmentText] = deque()
        self._error: str | None = None
        self._warnings: tuple[e.SessionWarning, ...] = ()

    # -------------------------------------------------------------------------------------- parsing

    def parse(self, message: str | bytes) -> Sequence[e.ClientEvent]:
        message = as_text(message)
        if isinstance(message, bytes):
            started = self._begin()
            chunk = e.Chunk(
                data=message, chunk_index=self._next_chunk_index, session_id=self._session_id
            )
            self._next_chunk_index += 1
            return (*started, chunk)
        try:
            fields = parse_object(message)
            if "config" in fields:
                self._configure(fields)
        except MessageError as error:
            error.fatal = True  # The protocol has no error reply.
            raise
        if fields.get("eof") or fields.get("reset"):
            started = self._begin()
            finish = e.Finish(session_id=self._session_id)
            self.stays_open = not fields.get("eof")
            self._session_id = ""
            return (*started, finish)
        if "config" in fields:
            return ()
        raise MessageError("a message must be config, eof, reset or audio", fatal=True)

    def _begin(self) -> Sequence[e.ClientEvent]:
        if self._session_id:
            return ()
        self._session_id = self._new_session_id()
        self._next_chunk_index = self._next_segment_index = 0
        self._partial = ""
        return (structs.replace(self._start, session_id=self._session_id),)

    def _configure(self, message: dict[str, Any]) -> None:
        if not isinstance(config := message["config"], dict):
            raise MessageError("config must be an object")
        # Clients in many languages send null for a field that is not set.
        config = {name: value for name, value in config.items() if value is not None}
        unknown = [
            *self._start.ignored_fields,
            *(storable(name, "config") for name in config if name not in _CONFIG),
            *(storable(name, "a name") for name in message if name not in _PARTS),
        ]
        changed: dict[str, Any] = {"ignored_fields": shown_names(dict.fromkeys(unknown))}
        model = config.get("model", self._start.model)
        if not isinstance(model, str) or len(model) > MODEL_CHARS_MAX:
            raise MessageError(f"model must be a string of at most {MODEL_CHARS_MAX} characters")
        changed["model"] = storable(model, "model")
        if "sample_rate" in config:
            if (number := _number(config["sample_rate"])) is None:
                raise MessageError("sample_rate must be a number")
            rate_hz = in_range(number, "sample_rate")
            changed["sample_rate_hz"] = rate_hz
            changed["declared"] = DeclaredAudio(sample_rate_hz=rate_hz)
        self._with_words = _flag(config.get("words", self._with_words))
        alternatives = _number(config.get("max_alternatives", int(self._with_alternatives)))
        if alternatives is None or not alternatives >= 0:
            raise MessageError("max_alternatives must be a number from 0")
        self._with_alternatives = alternatives >= 1
        # Two fields that vosk-server does not have.
        changed |= {name: _flag(config[name]) for name in ("punctuation", "itn") if name in config}
        if "phrase_list" in config:
            changed["hotwords"] = _phrases(config["phrase_list"])
        start = structs.replace(self._start, **changed)
        is_late = self._session_id and start != self._start
        self._start = start
        for warning, applies in ((LATE, is_late), (ONE_ALTERNATIVE, alternatives > 1)):
            if applies and warning not in self._warnings:
                self._warnings += (warning,)

    # ------------------------------------------------------------------------------------- encoding

    def encode(self, answer: e.Answer) -> Sequence[str]:
        if isinstance(answer, e.ChunkReceived):
            if self._pending:
                return (self._result([self._pending.popleft()]),)
            return (self._dump({"partial": self._partial}),)
        if isinstance(answer, e.Finished):
            self._warnings += answer.warnings
            segments = list(self._pending)
            self._pending.clear()
            return (self._result(segments),)
        if isinstance(answer, e.PartialText):
            if answer.segment_index >= self._next_segment_index:
                self._partial = answer.text
        elif isinstance(answer, e.SegmentText):
            self._note_segment(answer.segment_index)
            if answer.text:
                self._pending.append(answer)
        elif isinstance(answer, e.Started):
            self._warnings += answer.warnings
            if self._start.hotwords:
                self._warnings += (GRAMMAR,)
        elif isinstance(answer, e.Problem):
            if answer.segment_index is not None:
                self._note_segment(answer.segment_index)
            self._error = f"{answer.code}: {answer.message}"
        return ()

    def _note_segment(self, segment_index: int) -> None:
        self._next_segment_index = segment_index + 1
        self._partial = ""

    def _result(self, segments: Sequence[e.SegmentText]) -> str:
        result: dict[str, Any] = {"text": join_texts(segment.text for segment in segments)}
        if self._with_words and any(segment.tokens for segment in segments):
            words = [self._word(token, s.confidence) for s in segments for token in s.tokens]
            result = {"result": words, **result}
        if self._with_alternatives:
            sure = confidence_or_default(confidence(segments))
            result = {"alternatives": [{"confidence": sure, **result}]}
        return self._dump(result)

    def _word(self, token: Token, confidence: float | None) -> dict[str, Any]:
        """``confidence``: that of the word's utterance, because the models return none for
        words."""
        word = {"end": token.end_ms / 1000, "start": token.start_ms / 1000, "word": token.text}
        # An alternative has one confidence for all its words.
        if self._with_alternatives:
            return word
        return {"conf": confidence_or_default(confidence), **word}

    def _dump(self, reply: dict[str, Any]) -> str:
        """Add warnings, and a pending error as ``error``: fields that clients of the protocol
        ignore."""
        if self._warnings:
            reply, self._warnings = {**reply, "warnings": self._warnings}, ()
        if self._error is not None:
            reply, self._error = {**reply, "error": self._error}, None
        return to_json(reply)


def _flag(value: Any) -> bool:
    """Return the meaning of any value: a text is as in Python, unless it says false."""
    meaning = truth(value)
    return bool(value) if meaning is None else meaning


def _number(value: Any) -> float | None:
    """Return the number, also from a string, as vosk-server does; None if it is neither."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value if isinstance(value, int | float) else None


def _phrases(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(phrase, str) for phrase in value):
        raise MessageError("phrase_list must be a list of strings")
    return storable_hotwords((phrase for phrase in value if phrase != "[unk]"), "phrase_list")
