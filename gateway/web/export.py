"""Texts that a client has edited, as a file in the formats of a stored session."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError

from gateway.web.description import SESSIONS, request_body
from gateway.web.parameters import WARNS_OF_UNKNOWN
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


def add_export(app: FastAPI) -> None:
    schema = ExportRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions: dict[str, Any] = schema.pop("$defs")
    schema["properties"]["segments"]["items"] = _inlined(
        definitions["ExportedSegment"], definitions
    )

    @app.post(
        "/api/v1/export",
        tags=[SESSIONS],
        dependencies=[WARNS_OF_UNKNOWN],
        responses={
            200: {"content": {name: {} for name in MEDIA_TYPES}},
            408: {"model": ProblemAnswer},
            413: {"model": ProblemAnswer},
        },
        openapi_extra=request_body("application/json", schema),
    )
    async def export(
        request: Request,
        format: Annotated[TranscriptFormat, Query(description="Format of the answer")],
    ) -> Response:
        """Texts with their times as TXT, SRT, WebVTT or JSON, in the same form as of a stored
        session. Nothing is stored."""
        try:
            body = b"".join([piece async for piece in bounded(request, EXPORT_BYTES_MAX)])
            wanted = ExportRequest.model_validate_json(body)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise RequestValidationError(
                [{**each, "loc": ("body", *each["loc"])} for each in found]
            ) from error
        if format == "json":
            return JSONResponse(wanted.model_dump())
        return transcript_response(wanted.model_dump(), format)


def _inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    tokens = schema["properties"]["tokens"]
    return {
        **schema,
        "properties": {
            **schema["properties"],
            "tokens": {**tokens, "items": definitions["ExportedToken"]},
        },
    }
