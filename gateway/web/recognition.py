"""``POST /recognition``, compatible with FunASR's HTTP server: a form with the file as ``audio``.
Limits are those of ``gateway.web.file_transcription``."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request, Response

from gateway.dialects import funasr_file
from gateway.telemetry.metrics import UPLOADS
from gateway.web.errors import RECOGNITION_PATH, error_response
from gateway.web.file_transcription import FileApi, Transcriber
from gateway.web.uploads import RefusedError

_API: Final = FileApi("audio", funasr_file.parse, funasr_file.FunasrFile(), funasr_file.encode)


def add_recognition(app: FastAPI, transcriber: Transcriber) -> None:
    @app.post(RECOGNITION_PATH, include_in_schema=False)
    async def recognise(request: Request) -> Response:
        try:
            response = await transcriber.serve(request, _API)
        except RefusedError as error:
            response = error_response(
                RECOGNITION_PATH, error.status, error.code, error.message, error.headers
            )
        UPLOADS.labels(response.status_code).inc()
        return response
