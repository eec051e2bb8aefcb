"""Transcribes a file that a request contains, for the APIs of OpenAI, FunASR and Deepgram.

A file is transcribed by a session in the bulk lane. It is decoded, divided into utterances and
recognised by all workers, at most ``SessionLimits.unanswered_audio_ms_max`` of it at a time.

Limits of an upload: ``UPLOADS_MAX`` at a time (429), ``UPLOAD_BYTES_MAX`` (413), the time limits of
``gateway.web.uploads`` (408), ``SESSION_AUDIO_S_MAX`` of audio (413 ``audio_too_long``).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from msgspec import structs
from starlette.datastructures import FormData, UploadFile
from starlette.types import Receive, Scope, Send
from websockets.frames import CloseCode

from gateway.admission.policy import DRAINING
from gateway.admission.token_uses import AUDIO_CODE
from gateway.audio.foreign_files import foreign
from gateway.audio.formats import SNIFF_BYTES_MAX, TITLES, sniff
from gateway.dialects import openai
from gateway.dialects.dialect import MessageError
from gateway.dialects.speakers import with_speakers
from gateway.server import Server
from gateway.session import events as e
from gateway.session.limits import Traits
from gateway.session.runner import INTERNAL_ERROR
from gateway.session.states import State
from gateway.storage.callers import Caller
from gateway.telemetry.metrics import UPLOADS, count_problem
from gateway.web.caller import caller_of
from gateway.web.errors import RefusedError
from gateway.web.uploads import receive, text_fields

T = TypeVar("T")

READ_BYTES = 32_768
"""Bytes of a file read at a time: about a second of PCM, so that other tasks are not delayed."""
ALIVE_CHECK_S = 1.0
"""Interval of checks for a disconnected client."""
MODEL_NOT_FOUND = "model_not_found"
WITHOUT_FILENAME = (
    "this part has no filename, so it is a text field and not a file; in JSON send input_audio"
)
_STATUS = {
    "bad_audio": 400,
    "deleted": 410,
    "audio_too_long": 413,
    AUDIO_CODE: 429,
    "overloaded": 503,
}
"""Status of the answer by error code. Other codes are failed segments: 500."""


class AnswerQueue:
    """A ``ClientConnection`` that queues the answers. None is the end."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[e.Answer | None] = asyncio.Queue()
        self.close_code: int | None = None
        """The reason of the end."""

    def answer(self, answer: e.Answer) -> None:
        if isinstance(answer, e.Problem):
            count_problem(answer.code)
        self.answers.put_nowait(answer)

    def close(self, code: int, reason: str) -> None:
        self.close_code = code
        self.answers.put_nowait(None)

    displace = close


class FileApi(NamedTuple):
    """The format of a protocol's requests with a file, and of its answers."""

    file_field: str
    parse: Callable[[Mapping[str, Sequence[str]], Sequence[str]], openai.Request]
    """Parses the other fields. Raises ``MessageError``."""
    traits: Traits
    encode: Callable[[openai.Transcript, openai.Request], str]
    stream: Callable[[Transcription], AsyncIterator[str]] | None = None
    """Yields server-sent events. None: the protocol does not stream answers."""


class Transcriber:
    """Transcribes files, at most ``UPLOADS_MAX`` at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._running = 0

    async def serve(self, request: Request, api: FileApi) -> Response:
        """Return the answer to a request.

        Raises:
            RefusedError: with the status and the body of an error answer.
        """
        async with AsyncExitStack() as held:
            # The form is not read yet, so the model is known only if there is just one.
            admitted = self._server.gate.model_of("")
            await held.enter_async_context(self.admitted(caller_of(request), admitted))
            form = await receive(request, self._server.settings.upload_bytes_max)
            held.push_async_callback(form.close)
            transcription = await self._transcription(request, api, form, admitted)
            held.push_async_callback(transcription.close)
            if api.stream is None or not transcription.request.stream:
                return await _answer(transcription, request, api)
            return _Streamed(api.stream(transcription), transcription, held.pop_all())

    @asynccontextmanager
    async def admitted(self, caller: Caller, model: str | None) -> AsyncIterator[None]:
        """Hold the slot of one transcription, and a connection of ``caller`` at the gate.

        Raises:
            RefusedError: all slots are taken, or the gate refuses the connection.
        """
        limit, gate = self._server.settings.uploads_max, self._server.gate
        if self._running >= limit:
            message = f"{limit} files are being transcribed, which is the limit; try again later"
            raise RefusedError(429, "too_many_uploads", message)
        self._running += 1
        try:
            refusal = await gate.enter(model=model, lane="bulk", caller=caller)
            if refusal is not None:
                raise RefusedError.not_admitted(refusal)
            try:
                yield
            finally:
                gate.leave(caller)
        finally:
            self._running -= 1

    def admit(self, model: str, admitted: str | None) -> None:
        """Admit a session of ``model``, unless the gate has ``admitted`` it with the request.

        Raises:
            RefusedError: the model has no room.
        """
        if model != admitted:
            refusal = self._server.gate.enter_model(model, "bulk")
            if refusal is not None:
                raise RefusedError.not_admitted(refusal)

    async def _transcription(
        self, request: Request, api: FileApi, form: FormData, admitted: str | None
    ) -> Transcription:
        field = api.file_field
        file = form.get(field)
        try:
            if file is None:
                raise openai.invalid(field, "you must provide a file", openai.MISSING)
            if not isinstance(file, UploadFile):
                raise openai.invalid(field, WITHOUT_FILENAME)
            parameters = [f"?{name}" for name in request.query_params]
            wanted = api.parse(text_fields(form), parameters)
        except MessageError as error:
            raise RefusedError(400, error.code, str(error), error.param) from error
        model = self._server.models.choose(wanted.start)
        if isinstance(model, e.Problem):
            raise RefusedError(404, MODEL_NOT_FOUND, model.message, "model")
        self.admit(model.name, admitted)
        await check_kind(file)
        return Transcription(self._server, caller_of(request), api.traits, wanted, file)


async def check_kind(file: UploadFile) -> None:
    """Refuse a file that is evidently no audio. The decoder checks all others.

    Raises:
        RefusedError: its message names the kind of file.
    """
    beginning = await file.read(SNIFF_BYTES_MAX)
    await file.seek(0)
    if not beginning:
        raise RefusedError(400, "empty_file", "the file is empty", "file")
    kind = foreign(beginning) if sniff(beginning) is None else None
    if kind is not None:
        message = f"this is {kind}, and not {TITLES}"
        raise RefusedError(400, "unsupported_format", message, "file")


class FileSession:
    """The session that recognises a file. Use ``answers`` or ``transcript`` once, and ``close`` it
    in any case.

    ``events`` yields the start, the audio, and its end; a ``RefusedError`` that it raises is the
    answer to the file. ``admit`` admits the model of the start; ``note`` gets each answer.
    """

    def __init__(
        self,
        server: Server,
        caller: Caller,
        traits: Traits,
        events: AsyncIterator[e.ClientEvent],
        admit: Callable[[str], e.Problem | None] = lambda _model: None,
        note: Callable[[e.Answer], None] = lambda _answer: None,
    ) -> None:
        self.received = False
        """All of the file is here, though the session may not have taken it yet."""
        self._events = events
        self._admit = admit
        self._note = note
        self._registry = server.registry
        self._queue = AnswerQueue()
        self._runner = self._registry.new_runner(caller, traits)
        self._runner.open(self._queue)
        self._feeding: asyncio.Task[None] | None = None
        self._refusal: RefusedError | None = None

    async def _feed(self) -> None:
        try:
            async for event in self._events:
                self.received = isinstance(event, e.Finish)
                if isinstance(event, e.Start):
                    await self._begin(event)
                elif self._runner.session.state is State.NEW or self._runner.session.over:
                    return  # It takes no more audio.
                else:
                    # A disconnecting client cancels this task, but not a chunk in progress.
                    await asyncio.shield(self._runner.take(self._queue, event))
        except RefusedError as error:
            self._refusal = error
            self._queue.close(CloseCode.NORMAL_CLOSURE, error.code)
        except Exception:
            self._refusal = RefusedError(500, INTERNAL_ERROR.code, INTERNAL_ERROR.message)
            self._runner.fail()

    async def _begin(self, start: e.Start) -> None:
        found = await self._registry.reserve_or_resume(self._runner, start, self._admit)
        if isinstance(found, e.Problem):  # Its last worker has gone meanwhile.
            self._queue.answer(found)
        else:
            self._runner.begin(start)

    async def answers(self) -> AsyncIterator[e.Answer]:
        """Yield the answers up to ``Finished``.

        Raises:
            RefusedError: the file is refused or cannot be decoded, recognition of a segment failed,
                the session is deleted, or the gateway stops.
        """
        self._feeding = asyncio.create_task(self._feed())
        while (answer := await self._queue.answers.get()) is not None:
            if isinstance(answer, e.Problem):
                status = _STATUS.get(answer.code, 500)
                raise RefusedError(status, answer.code, answer.message, "file")
            self._note(answer)
            yield answer
            if isinstance(answer, e.Finished):
                return
        if self._refusal is not None:
            raise self._refusal
        if self._queue.close_code == CloseCode.SERVICE_RESTART:
            message = f"{DRAINING.message}; send the file again"
            raise RefusedError(503, DRAINING.code, message, retry_after_s=DRAINING.retry_after_s)
        raise RefusedError(500, "ended", "the session ended without a final result")

    async def transcript(self) -> tuple[list[e.SegmentText], e.Finished]:
        """Return the segments and the end. Errors as ``answers``."""
        segments: list[e.SegmentText] = []
        async for answer in self.answers():
            if isinstance(answer, e.Finished):
                return with_speakers(segments, answer), answer
            if isinstance(answer, e.SegmentText):
                segments.append(answer)
        raise AssertionError("the last answer is Finished")

    async def close(self) -> None:
        """End the session. Audio that it has received is still recognised and stored."""
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)
        self._runner.detach(self._queue)


class Transcription(FileSession):
    """The session of a file that has been received with a form."""

    def __init__(
        self,
        server: Server,
        caller: Caller,
        traits: Traits,
        request: openai.Request,
        file: UploadFile,
    ) -> None:
        self.request = request
        self.session_id = str(uuid.uuid4())
        self.warnings: tuple[e.SessionWarning, ...] = ()
        """About the request, once the session has started; about the audio, in the end."""
        super().__init__(server, caller, traits, self._events_of(file), note=self._note_warnings)

    async def _events_of(self, file: UploadFile) -> AsyncIterator[e.ClientEvent]:
        yield structs.replace(self.request.start, session_id=self.session_id)
        while data := await file.read(READ_BYTES):
            yield e.Chunk(data=data)
        yield e.Finish(session_id=self.session_id)

    def _note_warnings(self, answer: e.Answer) -> None:
        if isinstance(answer, e.Started | e.Finished):
            self.warnings += answer.warnings


async def counted(answering: Awaitable[Response]) -> Response:
    """Return the answer to a request with a file, and count it by its status."""
    try:
        response = await answering
    except RefusedError as error:
        UPLOADS.labels(error.status).inc()
        raise
    UPLOADS.labels(response.status_code).inc()
    return response


async def _answer(transcription: Transcription, request: Request, api: FileApi) -> Response:
    """Return the complete answer, unless the client disconnects."""
    try:
        segments, end = await while_connected(request, transcription.transcript())
    except RefusedError as error:
        error.headers["X-Session-Id"] = transcription.session_id
        raise
    transcript = openai.Transcript(
        text=end.text,
        duration_ms=end.duration_ms,
        segments=tuple(segments),
        warnings=transcription.warnings,
    )
    warnings = openai.warnings_header(transcription.warnings)
    return Response(
        api.encode(transcript, transcription.request),
        media_type=openai.MEDIA_TYPES[transcription.request.response_format],
        headers={"X-Session-Id": transcription.session_id, **warnings},
    )


async def while_connected(
    request: Request, work: Coroutine[Any, Any, T], received: Callable[[], bool] = lambda: True
) -> T:
    """Return the result of ``work``. Until the body is ``received``, its reader notes the end of
    the connection, and this would take pieces of the body.

    Raises:
        RefusedError: the client disconnects first.
    """
    working = asyncio.create_task(work)
    try:
        while not working.done():
            await asyncio.wait([working], timeout=ALIVE_CHECK_S)
            if not working.done() and received() and await request.is_disconnected():
                message = "the client has closed the connection"
                raise RefusedError(499, "client_disconnected", message)
        return working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


class _Streamed(StreamingResponse):
    """The answer as a stream of server-sent events. ``held`` is released at its end."""

    def __init__(
        self, events: AsyncIterator[str], transcription: Transcription, held: AsyncExitStack
    ) -> None:
        headers = {"X-Session-Id": transcription.session_id}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Not in the generator, which never runs if the client disconnects first.
        async with self._held:
            await super().__call__(scope, receive, send)
