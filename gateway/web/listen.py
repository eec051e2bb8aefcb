"""``POST /v1/listen``, compatible with Deepgram's API for files: the body is the file.

The file is decoded while it arrives, by a session in the bulk lane. Limits are those of
``gateway.web.file_transcription``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from gateway.dialects.deepgram_file import DeepgramFile
from gateway.dialects.dialect import Ignored, MessageError, Parsed, Reply
from gateway.dialects.registry import deepgram_file
from gateway.dialects.speakers import with_speakers
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
    with transcriber.slot():
        body = await _File(server, request, dialect).body()
    return JSONResponse(body, headers={"X-Session-Id": body["metadata"]["request_id"]})


class _File:
    """A file that arrives, and the session that recognises it."""

    def __init__(self, server: Server, request: Request, dialect: DeepgramFile) -> None:
        self._gate = server.gate
        self._bytes_max = server.settings.upload_bytes_max
        self._request = request
        self._dialect = dialect
        self._admitted: str | None = None
        """The model that the gate has admitted."""
        self._caller = caller_of(request)
        self._session = FileSession(server, self._caller, dialect)

    async def body(self) -> dict[str, Any]:
        """Return the body of the answer.

        Raises:
            RefusedError: the file is refused, or recognition failed.
        """
        asked = self._dialect.served_name(self._request.query_params.get("model", ""))
        self._admitted = self._gate.model_of(asked)
        refusal = await self._gate.enter(
            model=self._admitted, lane=self._dialect.lane, caller=self._caller
        )
        if refusal is not None:
            raise RefusedError.not_admitted(refusal)
        feeding = asyncio.create_task(self._feed())
        answering = asyncio.create_task(self._answer())
        try:
            await asyncio.wait([feeding, answering], return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
            return await while_connected(self._request, answering)
        finally:
            for task in (feeding, answering):
                task.cancel()
            await asyncio.gather(feeding, answering, return_exceptions=True)
            self._session.close()
            self._gate.leave(self._caller)

    async def _feed(self) -> None:
        empty = True
        async for piece in bounded(self._request, self._bytes_max):
            empty = empty and not piece
            if piece:
                await self._take(self._dialect.parse(piece))
        if empty:
            raise RefusedError(400, "empty_file", "the file is empty")
        await self._take(self._dialect.parse(b""))

    async def _take(self, events: Sequence[Parsed]) -> None:
        for event in events:
            assert not isinstance(event, Ignored | Reply)
            if isinstance(event, e.Start):
                await self._session.begin(event, self._admit)
            else:
                await self._session.take(event)

    def _admit(self, model: str) -> None:
        """Raises:
        RefusedError: the model has no room.
        """
        if model != self._admitted:
            refusal = self._gate.enter_model(model, self._dialect.lane)
            if refusal is not None:
                raise RefusedError.not_admitted(refusal)

    async def _answer(self) -> dict[str, Any]:
        segments: list[e.SegmentText] = []
        async for answer in self._session.answers():
            if isinstance(answer, e.Finished):
                return self._dialect.body(with_speakers(segments, answer), answer)
            self._dialect.encode(answer)
            if isinstance(answer, e.SegmentText):
                segments.append(answer)
        raise AssertionError("the last answer is Finished")
