"""``POST /recognition``, compatible with FunASR's HTTP server: a form with the file as ``audio``.
Limits are those of ``gateway.web.file_transcription``."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request, Response

from gateway.dialects import funasr_file
from gateway.session.limits import FileTraits
from gateway.web.errors import RECOGNITION_PATH
from gateway.web.file_transcription import FileApi, Transcriber, counted

_API: Final = FileApi("audio", funasr_file.parse, FileTraits("funasr"), funasr_file.encode)


def add_recognition(app: FastAPI, transcriber: Transcriber) -> None:
    @app.post(RECOGNITION_PATH, include_in_schema=False)
    async def recognise(request: Request) -> Response:
        return await counted(transcriber.serve(request, _API))
