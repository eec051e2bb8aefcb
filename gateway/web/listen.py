"""``POST /v1/listen``, compatible with Deepgram's API for files: the body is the file.

The file is decoded while it arrives, by a session in the bulk lane. Limits are those of
``gateway.web.file_transcription``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from gateway.dialects.deepgram import DeepgramFile
from gateway.dialects.dialect import MessageError
from gateway.dialects.registry import deepgram_file
from gateway.server import Server
from gateway.session import events as e
from gateway.web.caller import caller_of
from gateway.web.errors import DEEPGRAM_PATH, RefusedError, invalid_query
from gateway.web.file_transcription import FileSession, Transcriber, counted, while_connected
from gateway.web.uploads import bounded, content_type

NO_ADDRESSES = "send the file itself as the body: forms are not read, addresses not fetched"


def add_listen(app: FastAPI, server: Server, transcriber: Transcriber) -> None:
    @app.post(DEEPGRAM_PATH, include_in_schema=False)
    async def listen(request: Request) -> Response:
        return await counted(_response(request, server, transcriber))


async def _response(request: Request, server: Server, transcriber: Transcriber) -> Response:
    query = parse_qs(request.url.query, keep_blank_values=True)
    try:
        dialect = deepgram_file(query)
    except MessageError as error:
        return invalid_query(DEEPGRAM_PATH, error)
    if content_type(request) in ("application/json", "multipart/form-data"):
        raise RefusedError(400, "not_offered", NO_ADDRESSES)
    caller = caller_of(request)
    model = server.gate.model_of(dialect.served_name(request.query_params.get("model", "")))
    events = _events(request, dialect, server.settings.upload_bytes_max)

    def note(answer: e.Answer) -> None:
        if not isinstance(answer, e.Finished):
            dialect.encode(answer)

    async with transcriber.admitted(caller, model):
        file = FileSession(
            server, caller, dialect, events, lambda used: transcriber.admit(used, model), note
        )
        try:
            segments, end = await while_connected(request, file.transcript(), lambda: file.received)
        finally:
            await file.close()
    body = dialect.body(segments, end)
    return JSONResponse(body, headers={"X-Session-Id": body["metadata"]["request_id"]})


async def _events(
    request: Request, dialect: DeepgramFile, bytes_max: int
) -> AsyncIterator[e.ClientEvent]:
    empty = True
    async for piece in bounded(request, bytes_max):
        if piece:
            empty = False
            for event in dialect.take_audio(piece):
                yield event
    if empty:
        raise RefusedError(400, "empty_file", "the file is empty")
    for event in dialect.take_audio(b""):
        yield event
