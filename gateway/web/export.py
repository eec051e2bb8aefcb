"""Texts that a client has edited, as a file in the formats of a stored session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from gateway.dialects.openai import warnings_header
from gateway.web.description import SESSIONS, request_body
from gateway.web.parameters import Warnings, ignored_fields
from gateway.web.schemas import ProblemAnswer
from gateway.web.sessions import TranscriptFormat, transcript_response
from gateway.web.uploads import bounded

EXPORT_BYTES_MAX = 16 << 20
"""Size limit of a request, besides the limit of a form without its file."""
SEGMENTS_MAX = 100_000
TOKENS_MAX = 10_000
"""Most tokens of a segment."""

MEDIA_TYPES = ("application/json", "text/plain", "application/x-subrip", "text/vtt")

Ms = Annotated[int, Field(ge=0, lt=1 << 53)]


class ExportedToken(BaseModel):
    text: str
    start_ms: Ms
    end_ms: Ms


class ExportedSegment(BaseModel):
    text: str
    start_ms: Ms
    end_ms: Ms
    speaker: int | None = Field(None, ge=1)
    tokens: list[ExportedToken] = Field([], max_length=TOKENS_MAX)
    """Words with their times; without them, or if the text has other words, times are shared."""


class ExportRequest(BaseModel):
    segments: list[ExportedSegment] = Field(max_length=SEGMENTS_MAX)


_JSON: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_BELOW: dict[type[BaseModel], dict[str, type[BaseModel]]] = {
    ExportRequest: {"segments": ExportedSegment},
    ExportedSegment: {"tokens": ExportedToken},
    ExportedToken: {},
}


def add_export(app: FastAPI) -> None:
    @app.post(
        "/api/v1/export",
        tags=[SESSIONS],
        responses={
            200: {"content": {name: {} for name in MEDIA_TYPES}},
            408: {"model": ProblemAnswer},
            413: {"model": ProblemAnswer},
        },
        openapi_extra=request_body("application/json", _schema(ExportRequest)),
    )
    async def export(
        request: Request,
        warnings: Warnings,
        format: Annotated[TranscriptFormat, Query(description="Format of the answer")],
    ) -> Response:
        """Texts with their times as TXT, SRT, WebVTT or JSON, in the same form as of a stored
        session. Nothing is stored. The header ``X-Warnings`` names unknown fields."""
        try:
            body = b"".join([piece async for piece in bounded(request, EXPORT_BYTES_MAX)])
            given = _JSON.validate_json(body)
            wanted = ExportRequest.model_validate(given)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise RequestValidationError(
                [{**each, "loc": ("body", *each["loc"])} for each in found]
            ) from error
        texts = wanted.model_dump()
        response = JSONResponse(texts) if format == "json" else transcript_response(texts, format)
        unknown = ignored_fields(_unknown(given, ExportRequest))
        response.headers.update(warnings_header([*warnings, *unknown]))
        return response


def _unknown(given: dict[str, Any], form: type[BaseModel], path: str = "") -> Iterator[str]:
    """Names of fields in ``given`` that ``form`` does not have."""
    yield from (path + name for name in given if name not in form.model_fields)
    for name, below in _BELOW[form].items():
        for each in given.get(name, ()):
            yield from _unknown(each, below, f"{path}{name}.")


def _schema(form: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of ``form``, with those of the forms below it in place of references."""
    schema = form.model_json_schema()
    schema.pop("$defs", None)
    for name, below in _BELOW[form].items():
        schema["properties"][name]["items"] = _schema(below)
    return schema
