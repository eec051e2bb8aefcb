"""``POST /v1/audio/transcriptions`` and ``GET /v1/models``, compatible with OpenAI's API.

Limits are those of ``gateway.web.file_transcription``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from gateway.audio.formats import TITLES
from gateway.dialects import openai
from gateway.dialects.increments import Increments
from gateway.server import Server
from gateway.session import events as e
from gateway.session.limits import FileTraits
from gateway.web.description import OPENAI, form_body
from gateway.web.errors import RefusedError
from gateway.web.file_transcription import (
    MODEL_NOT_FOUND,
    FileApi,
    Transcriber,
    Transcription,
    counted,
)


def add_transcriptions(app: FastAPI, server: Server, transcriber: Transcriber) -> None:
    @app.post(
        "/v1/audio/transcriptions",
        tags=[OPENAI],
        summary="Transcribe a file, compatible with OpenAI's API",
        openapi_extra=_REQUEST_BODY,
        responses=_ANSWERS,
    )
    async def transcribe(request: Request) -> Response:
        return await counted(transcriber.serve(request, _API))

    @app.post(
        "/v1/audio/translations",
        tags=[OPENAI],
        summary="Refused: no model translates. For clients of OpenAI's API",
        responses={400: _PROBLEM},
    )
    async def translate() -> JSONResponse:
        message = "no served model translates; /v1/audio/transcriptions keeps the language"
        raise RefusedError(400, "translation_unavailable", message)

    @app.get("/v1/models", tags=[OPENAI], summary="List the models, compatible with OpenAI's API")
    async def models() -> JSONResponse:
        return JSONResponse(openai.models(server.models.all))

    @app.get(
        "/v1/models/{name:path}",
        tags=[OPENAI],
        summary="Describe a model, compatible with OpenAI's API",
        responses={404: _PROBLEM},
    )
    async def model(name: str) -> JSONResponse:
        found = server.models.get(name)
        if found is None:
            message = f"the model {name!r} does not exist"
            raise RefusedError(404, MODEL_NOT_FOUND, message, "model")
        return JSONResponse(openai.model(found))


async def _events(transcription: Transcription) -> AsyncIterator[str]:
    increments = Increments(revisable=True)
    diarized = transcription.request.response_format == "diarized_json"
    try:
        async for answer in transcription.answers():
            if isinstance(answer, e.Finished):
                yield openai.done(answer.text, transcription.warnings)
            if not isinstance(answer, e.SegmentText):
                continue
            if text := increments.sentence(answer.text):
                yield openai.delta(text)
            if diarized and answer.text:
                yield openai.turn(answer.segment_index, answer)
    except RefusedError as error:
        yield openai.failed(error.code, error.message)


_API: Final = FileApi("file", openai.parse, FileTraits("openai"), openai.encode, _events)

_REQUEST_BODY = form_body(
    "file",
    f"A {TITLES} file of at most UPLOAD_BYTES_MAX bytes",
    {
        "model": {"type": "string"},
        "language": {"type": "string"},
        "prompt": {"type": "string"},
        "response_format": {"enum": list(openai.MEDIA_TYPES)},
        "temperature": {"type": "number"},
        "timestamp_granularities[]": {"type": "array", "items": {"enum": ["segment", "word"]}},
        "stream": {"type": "boolean"},
    },
    "model",
)
_TEXTS: dict[str, Any] = {
    kind: {} for kind in sorted({*openai.MEDIA_TYPES.values(), "text/event-stream"})
}
_PROBLEM = {"content": {"application/json": {"schema": {"type": "object", "required": ["error"]}}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The transcript", "content": _TEXTS},
    **{
        status: {"description": description, **_PROBLEM}
        for status, description in {
            400: "An invalid field or form, or a file that is no audio or cannot be decoded",
            404: "No worker serves the model",
            408: "The upload has stopped, or is too slow",
            410: "The session was deleted while it ran",
            413: "The file is larger than UPLOAD_BYTES_MAX, or its audio longer than allowed",
            415: "Neither a multipart form nor JSON",
            429: "UPLOADS_MAX files, or a limit of the token: see Retry-After",
            499: "The client has disconnected",
            500: "Recognition of a part of the audio failed",
            503: "The gateway admits no new session, or stops: see Retry-After",
        }.items()
    },
}
