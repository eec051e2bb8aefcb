"""``POST /v1/listen``, compatible with Deepgram's API for files: the body is the file.

The file is decoded while it arrives, by a session in the bulk lane. Limits are those of
``gateway.web.file_transcription``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from gateway.dialects.deepgram import DeepgramFile
from gateway.dialects.dialect import MessageError
from gateway.dialects.registry import deepgram_file
from gateway.server import Server
from gateway.session import events as e
from gateway.storage.callers import Caller
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
    async with transcriber.admitted(caller, model):
        file = _File(server, caller, dialect, request, lambda used: transcriber.admit(used, model))
        try:
            segments, end = await while_connected(request, file.transcript(), file.received)
        finally:
            await file.close()
    body = dialect.body(segments, end)
    return JSONResponse(body, headers={"X-Session-Id": body["metadata"]["request_id"]})


class _File(FileSession):
    """The session of a file that arrives meanwhile. ``admit`` raises ``RefusedError`` if the model
    has no room."""

    def __init__(
        self,
        server: Server,
        caller: Caller,
        dialect: DeepgramFile,
        request: Request,
        admit: Callable[[str], None],
    ) -> None:
        super().__init__(server, caller, dialect)
        self._bytes_max = server.settings.upload_bytes_max
        self._dialect = dialect
        self._request = request
        self._admit = admit
        self._received = False

    def received(self) -> bool:
        return self._received

    def note(self, answer: e.Answer) -> None:
        if not isinstance(answer, e.Finished):
            self._dialect.encode(answer)

    async def feed(self) -> None:
        empty = True
        async for piece in bounded(self._request, self._bytes_max):
            empty = empty and not piece
            if piece:
                await self._take_all(self._dialect.take_audio(piece))
        self._received = True
        if empty:
            raise RefusedError(400, "empty_file", "the file is empty")
        await self._take_all(self._dialect.take_audio(b""))

    async def _take_all(self, events: Sequence[e.ClientEvent]) -> None:
        for event in events:
            if isinstance(event, e.Start):
                await self.begin(event, self._admit)
            else:
                await self.take(event)
