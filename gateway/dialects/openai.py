"""Core: OpenAI's transcription API (docs/dialects.md): fields of a request, and formats of answers.

It only translates; ``gateway.web.file_transcription`` receives the file and transcribes it.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from msgspec import to_builtins

from gateway.dialects.dialect import MessageError
from gateway.dialects.fields import (
    LANGUAGE_CHARS_MAX,
    prompt_hotwords,
    shown_names,
    storable_hotwords,
)
from gateway.dialects.strict_json import to_json
from gateway.dialects.subtitles import to_srt, to_vtt
from gateway.session import events as e
from gateway.session.recognised import main_language, recognised
from wire.messages import ServedModel

ResponseFormat = Literal["json", "text", "verbose_json", "diarized_json", "srt", "vtt"]
Granularity = Literal["segment", "word"]
FIELD_BYTES_MAX = 65_536
"""Size limit of a field other than the file, enough for a long prompt."""


def invalid(param: str | None, message: str, code: str = "invalid_value") -> MessageError:
    """Return the error of the field ``param``; the codes are OpenAI's."""
    return MessageError(message, code, param=param)


def is_openais(model: str) -> bool:
    """Whether this is a model of OpenAI, which clients name by default: then the language selects
    the model."""
    return model == "whisper-1" or model.startswith("gpt-")


_USED = frozenset(
    {
        *("model", "language", "response_format", "stream", "temperature"),
        *("timestamp_granularities", "timestamp_granularities[]", "punctuation", "itn"),
        *("prompt", "keywords", "keywords[]", "languages", "languages[]"),
    }
)
CONFIDENCE_MIN = 1e-6
"""Its logarithm is the lowest that a segment can have."""

MISSING = "missing_required_parameter"

MEDIA_TYPES: dict[ResponseFormat, str] = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "verbose_json": "application/json",
    "diarized_json": "application/json",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The fields of a request other than the file."""

    start: e.Start
    """Without the id of the session."""
    response_format: ResponseFormat
    granularities: frozenset[Granularity]
    stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    text: str
    duration_ms: int
    segments: tuple[e.SegmentText, ...]
    warnings: tuple[e.SessionWarning, ...] = ()


def parse(fields: Mapping[str, Sequence[str]], parameters: Sequence[str] = ()) -> Request:
    """Read the text fields of a form, given by name. ``parameters``: names of those of the address,
    which have no effect. Raises ``MessageError`` if a field is invalid or missing."""
    form = _Form(fields)
    model = form.last("model")
    if not model:
        raise invalid("model", "you must provide a model", MISSING)
    response_format = form.last("response_format") or "json"
    if response_format not in MEDIA_TYPES:
        raise invalid("response_format", f"must be one of {', '.join(MEDIA_TYPES)}")
    form.check_temperature()
    granularities = form.granularities(response_format)
    stream = form.boolean("stream") or False
    if stream and response_format in ("verbose_json", "srt", "vtt"):
        form.ignored.add("response_format")  # The events have the text only.
    session = e.Start(
        session_id="",
        mode="stream",
        sample_rate_hz=16_000,
        model="" if is_openais(model) else model,
        language=form.language(),
        hotwords=form.hotwords(),
        # Two fields that OpenAI's API does not have.
        punctuation=form.boolean("punctuation"),
        itn=form.boolean("itn"),
        speakers=response_format == "diarized_json" or "diarize" in model.lower(),
        encoded=True,
        ignored_fields=shown_names((*parameters, *sorted(form.ignored))),
    )
    return Request(
        start=session, response_format=response_format, granularities=granularities, stream=stream
    )


class _Form:
    """Text fields by name. ``ignored``: names of those without effect, of the ones read so far."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self._fields = fields
        self.ignored = {*fields} - _USED

    def last(self, name: str) -> str:
        values = self._fields.get(name)
        return values[-1].strip() if values else ""

    def boolean(self, name: str) -> bool | None:
        """The field's value; None without one."""
        value = self.last(name).lower()
        if value not in ("true", "false", "1", "0", ""):
            raise invalid(name, "must be true or false")
        return value in ("true", "1") if value else None

    def _all(self, name: str) -> list[str]:
        """The values of a list, with or without brackets behind its name."""
        return [*self._fields.get(f"{name}[]", ()), *self._fields.get(name, ())]

    def check_temperature(self) -> None:
        try:
            temperature = float(self.last("temperature") or 0)
        except ValueError:
            temperature = -1.0
        if not 0 <= temperature <= 1:
            raise invalid("temperature", "must be a number from 0 to 1")
        if temperature:
            self.ignored.add("temperature")

    def granularities(self, response_format: str) -> frozenset[Granularity]:
        name = "timestamp_granularities"
        asked = self._all(name)
        if not asked or response_format != "verbose_json":
            # Vercel's AI SDK asks for them with every format.
            self.ignored |= {f"{name}[]"} if asked else set()
            return frozenset({"segment"})
        if not set(asked) <= set(get_args(Granularity)):
            raise invalid(f"{name}[]", "must be segment or word")
        return frozenset(cast(list[Granularity], asked))

    def language(self) -> str:
        languages = self._all("languages")
        language = self.last("language") or (languages[0] if len(languages) == 1 else "")
        if languages and languages != [language]:
            self.ignored.add("languages[]")
        if not language.isprintable():
            raise invalid("language", "must be printable")
        if len(language) > LANGUAGE_CHARS_MAX:
            raise invalid("language", f"is longer than {LANGUAGE_CHARS_MAX} characters")
        return language

    def hotwords(self) -> tuple[str, ...]:
        prompt = self.last("prompt")
        listed = prompt_hotwords(prompt)
        if prompt and not listed:
            self.ignored.add("prompt")
        try:
            return storable_hotwords([*self._all("keywords"), *listed], "keywords")
        except MessageError as error:
            raise invalid("keywords[]", str(error)) from error


# --------------------------------------------------------------------------------------- answers


def encode(transcript: Transcript, request: Request) -> str:
    """Return the body of the answer in the requested format."""
    wanted = request.response_format
    if wanted == "text":
        return transcript.text + "\n"
    if wanted == "srt":
        return to_srt(transcript.segments)
    if wanted == "vtt":
        return to_vtt(transcript.segments)
    if wanted == "json":
        body: dict[str, Any] = {"text": transcript.text, "usage": _usage(transcript)}
    elif wanted == "diarized_json":
        body = _diarized(transcript)
    else:
        body = _verbose(transcript, request)
    return to_json(body | warnings_field(transcript.warnings))


def warnings_header(warnings: Sequence[e.SessionWarning]) -> dict[str, str]:
    """Return the header of formats that have no field for warnings: JSON in ASCII."""
    return {"X-Warnings": json.dumps(to_builtins(warnings))} if warnings else {}


def warnings_field(warnings: Sequence[e.SessionWarning]) -> dict[str, Any]:
    return {"warnings": warnings} if warnings else {}


def _verbose(transcript: Transcript, request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": main_language(transcript.segments) or request.start.language,
        "duration": transcript.duration_ms / 1000,
        "text": transcript.text,
        "usage": _usage(transcript),
    }
    if "segment" in request.granularities:
        spoken = [segment for segment in transcript.segments if segment.text]
        body["segments"] = [_segment(number, segment) for number, segment in enumerate(spoken)]
    if "word" in request.granularities:
        body["words"] = [
            {"word": word.text, "start": word.start_ms / 1000, "end": word.end_ms / 1000}
            for segment in transcript.segments
            for word in segment.tokens
        ]
    return body


def _segment(number: int, segment: e.SegmentText) -> dict[str, Any]:
    sure = segment.confidence
    return {
        "id": number,
        "seek": 0,
        "start": segment.start_ms / 1000,
        "end": segment.end_ms / 1000,
        "text": segment.text,
        # Clients filter by these values. Where the model returns none, they keep the segment.
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0 if sure is None else math.log(max(sure, CONFIDENCE_MIN)),
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
        **recognised([segment]),
    }


def _diarized(transcript: Transcript) -> dict[str, Any]:
    spoken = [segment for segment in transcript.segments if segment.text]
    return {
        "task": "transcribe",
        "duration": transcript.duration_ms / 1000,
        "text": transcript.text,
        "segments": [_turn(number, segment) for number, segment in enumerate(spoken)],
        "usage": _usage(transcript),
    }


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration_ms / 1000)}


def _turn(number: int, segment: e.SegmentText) -> dict[str, Any]:
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number:03}",
        "start": segment.start_ms / 1000,
        "end": segment.end_ms / 1000,
        "text": segment.text,
        "speaker": _letter(segment.speaker),
    }


def _letter(speaker: int | None) -> str:
    """OpenAI labels speakers A, B, …; the field is a string in any case."""
    if speaker is None:
        return "unknown"
    return string.ascii_uppercase[speaker - 1 : speaker] or str(speaker)


def turn(number: int, segment: e.SegmentText) -> str:
    """Return a server-sent event with a segment and its speaker, of diarized_json."""
    return _event(_turn(number, segment))


def delta(text: str) -> str:
    """Return a server-sent event with the next part of the text."""
    return _event({"type": "transcript.text.delta", "delta": text})


def done(text: str, warnings: Sequence[e.SessionWarning]) -> str:
    """Return the last server-sent event, with the whole text."""
    return _event({"type": "transcript.text.done", "text": text, **warnings_field(warnings)})


def failed(code: str, message: str) -> str:
    """Return the last server-sent event after an error."""
    return _event({"type": "error", **error(500, code, message)})


def _event(body: dict[str, Any]) -> str:
    return f"data: {to_json(body)}\n\n"


def error(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the body of an error answer."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    kind = "rate_limit_error" if status == 429 else kind
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def models(served: Sequence[ServedModel]) -> dict[str, Any]:
    """Return the answer to ``GET /v1/models``."""
    return {"object": "list", "data": [model(each) for each in served]}


def model(served: ServedModel) -> dict[str, Any]:
    """Return the answer to ``GET /v1/models/{id}``. The last three fields are ours."""
    return {
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "funasr",
        "model": served.model,
        "workers": served.workers,
        "abilities": to_builtins(served.abilities),
    }
