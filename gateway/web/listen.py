"""``POST /v1/listen``, compatible with Deepgram's API for files: the body is the file.

The file is decoded while it arrives, by a session in the bulk lane. Limits are those of
``gateway.web.file_transcription``.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from gateway.dialects.deepgram_file import DeepgramFile
from gateway.dialects.dialect import Ignored, Parsed, QueryError, Reply
from gateway.dialects.registry import deepgram_file
from gateway.dialects.speakers import with_speakers
from gateway.server import Server
from gateway.session import events as e
from gateway.telemetry.metrics import BAD_REQUESTS, UPLOADS
from gateway.web.caller import caller_of
from gateway.web.errors import DEEPGRAM_PATH, error_response
from gateway.web.file_transcription import AnswerQueue, Transcriber, status_of, while_connected
from gateway.web.uploads import RefusedError, bounded

NO_ADDRESSES = "send the file as the body; addresses of files are not fetched"


def add_listen(app: FastAPI, server: Server, transcriber: Transcriber) -> None:
    @app.post(DEEPGRAM_PATH, include_in_schema=False)
    async def listen(request: Request) -> Response:
        response = await _response(request, server, transcriber)
        UPLOADS.labels(response.status_code).inc()
        return response


async def _response(request: Request, server: Server, transcriber: Transcriber) -> Response:
    query = parse_qs(request.url.query, keep_blank_values=True)
    try:
        dialect = deepgram_file(query)
    except QueryError as error:
        BAD_REQUESTS.labels("invalid").inc()
        return JSONResponse(error.body, 400)
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            raise RefusedError(400, "not_offered", NO_ADDRESSES)
        async with transcriber.slot():
            body = await _File(server, request, dialect).body()
    except RefusedError as error:
        # The connection stays open: a client that is still sending would not get the answer.
        return error_response(DEEPGRAM_PATH, error.status, error.code, error.message, error.headers)
    return JSONResponse(body, headers={"X-Session-Id": body["metadata"]["request_id"]})


class _File:
    """A file that arrives, and the session that recognises it."""

    def __init__(self, server: Server, request: Request, dialect: DeepgramFile) -> None:
        self._server = server
        self._request = request
        self._dialect = dialect
        self._queue = AnswerQueue()
        self._admitted: str | None = None
        """The model that the gate has admitted."""
        self._is_full = False
        """The model of the session has no room."""
        self._caller = caller_of(request)
        self._runner = server.registry.new_runner(self._caller, dialect)

    async def body(self) -> dict[str, Any]:
        """Return the body of the answer.

        Raises:
            RefusedError: the file is refused, or recognition failed.
        """
        gate = self._server.gate
        asked = self._dialect.served_name(self._request.query_params.get("model", ""))
        self._admitted = gate.model_of(asked)
        refusal = await gate.enter(
            model=self._admitted, lane=self._dialect.lane, caller=self._caller
        )
        if refusal is not None:
            raise RefusedError.not_admitted(refusal)
        self._runner.open(self._queue)
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
            self._runner.detach(self._queue)
            gate.leave(self._caller)

    async def _feed(self) -> None:
        empty = True
        async for piece in bounded(self._request, self._server.settings.upload_bytes_max):
            empty = empty and not piece
            if piece:
                await self._take(self._dialect.parse(piece))
        if empty:
            raise RefusedError(400, "empty_file", "the file is empty")
        await self._take(self._dialect.parse(b""))

    async def _take(self, events: Any) -> None:
        event: Parsed
        for event in events:
            assert not isinstance(event, Ignored | Reply)
            if isinstance(event, e.Start):
                found = await self._server.registry.reserve_or_resume(
                    self._runner, event, self._admit
                )
                if isinstance(found, e.Problem):
                    self._queue.answer(found)
                    return
                self._runner.begin(event)
            elif not self._runner.session.over:
                # A disconnecting client cancels this task, but not a chunk in progress.
                await asyncio.shield(self._runner.take(self._queue, event))

    def _admit(self, model: str) -> e.Problem | None:
        if model == self._admitted:
            return None
        refusal = self._server.gate.enter_model(model, self._dialect.lane)
        self._is_full = refusal is not None
        return e.Problem(code=refusal.code, message=refusal.message) if refusal else None

    async def _answer(self) -> dict[str, Any]:
        segments: list[e.SegmentText] = []
        while (answer := await self._queue.answers.get()) is not None:
            if isinstance(answer, e.Problem):
                status = 503 if self._is_full else status_of(answer.code)
                raise RefusedError(status, answer.code, answer.message)
            if isinstance(answer, e.Finished):
                return self._dialect.body(with_speakers(segments, answer), answer)
            self._dialect.encode(answer)
            if isinstance(answer, e.SegmentText):
                segments.append(answer)
        raise RefusedError(500, "ended", "the session ended without a final result")
