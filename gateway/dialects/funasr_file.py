"""Core: the answer to a file as FunASR's HTTP server has it (its ``runtime/python/http``), for
``POST /recognition``. The fields of a request are those of OpenAI's API, all optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.dialects import openai
from gateway.dialects.strict_json import to_json

FAILED = 1
"""``code`` of every error; 0 is success."""


def parse(fields: Mapping[str, Sequence[str]], parameters: Sequence[str] = ()) -> openai.Request:
    """Read the text fields of a form. Raises ``MessageError`` if one is invalid."""
    # OpenAI's API requires a model. The name of a model of OpenAI means any.
    used = {"model": ["whisper-1"], **fields, "response_format": ["json"]}
    return openai.parse(used, parameters)


def encode(transcript: openai.Transcript, _request: openai.Request) -> str:
    sentences = [
        {"text": segment.text, "start": segment.start_ms, "end": segment.end_ms}
        for segment in transcript.segments
        if segment.text
    ]
    answer = {"text": transcript.text, "sentences": sentences, "code": 0}
    return to_json(answer | openai.warnings_field(transcript.warnings))


def error(code: str, message: str) -> dict[str, str | int]:
    return {"code": FAILED, "msg": f"{code}: {message}"}
