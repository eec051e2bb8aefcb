"""Files that are submitted and recognised later, with the API of the system that this one replaces:
``POST /api/v1/asr/submit``, then ``GET /api/v1/asr/result/{id}`` until it is done.

A file waits in ``DATA_DIR/jobs`` until it is recognised by a session of the bulk lane, whose id is
that of the job. A restarted gateway, or another one with the same folder, resumes that session as a
client would. Its rows in the database are the result, and the file is removed.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Annotated, Any, ParamSpec

import structlog
from fastapi import FastAPI, Query, Request, Response
from msgspec import to_builtins
from starlette.datastructures import UploadFile

from gateway.dialects import openai
from gateway.dialects.fields import LANGUAGE_CHARS_MAX, MODEL_CHARS_MAX
from gateway.server import Server
from gateway.session import events as e
from gateway.session.limits import FileTraits
from gateway.session.resume import text_of
from gateway.session.runner import SessionRunner
from gateway.session.states import State
from gateway.storage.job_files import FullError, JobFile, JobFiles, Ticket
from gateway.telemetry.metrics import FILE_JOBS
from gateway.web.caller import caller_of
from gateway.web.description import FILES, form_body
from gateway.web.errors import RefusedError
from gateway.web.file_transcription import AnswerQueue, check_kind
from gateway.web.parameters import WARNS_OF_UNKNOWN, Warnings, ignored_fields
from gateway.web.schemas import (
    ProblemAnswer,
    SubmittedAnswer,
    TaskAnswer,
    TaskDeletedAnswer,
    TasksAnswer,
)
from gateway.web.sessions import PROBLEMS, SessionId, delete_session, deleted_body
from gateway.web.uploads import receive, text_fields
from persistence.history import HistoryQuery
from wire.messages import Failure

RUNNING_MAX = 4
"""Jobs that a gateway recognises at a time."""
ATTEMPTS_MAX = 5
"""Attempts at a job. One that ends because the gateway stops does not count."""
POLL_S = 1.0
"""Interval of searches for files that another gateway has left."""
RETRY_S = 5.0
"""Time until the next attempt at a job that was not admitted, or was interrupted."""
READ_BYTES = 32_768
"""A chunk of the job's session. A resumed session counts in chunks of this size."""
P = ParamSpec("P")
_STATUS = {"completed": "done", "failed": "failed", "abandoned": "failed", "lost": "failed"}
"""By status of the session. All others are ``processing``."""
_ENDED_EARLY = {
    "code": "ended_early",
    "message": "the gateway has stopped, or the client has left, before the end",
}
GIVEN_UP = Failure(code="given_up", message=f"{ATTEMPTS_MAX} attempts have failed")
_TRAITS = FileTraits("file job", resumable=True)


class FileJobs:
    """The jobs of this gateway's host. ``run`` recognises them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._receiving = 0
        self._changed = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._not_before_s: dict[str, float] = {}
        self._log = structlog.get_logger()

    @cached_property
    def files(self) -> JobFiles:
        settings = self._server.settings
        return JobFiles(settings.jobs_directory, settings.jobs_max, settings.jobs_bytes_max)

    @property
    def file_bytes_max(self) -> int:
        return min(self._server.settings.upload_bytes_max, self._server.settings.jobs_bytes_max)

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """A file is being received.

        Raises:
            RefusedError: there is no room for it, or too many others are being received.
        """
        if self._receiving >= self._server.settings.uploads_max:
            message = f"{self._receiving} files are being received; try again later"
            raise RefusedError(429, "too_many_uploads", message)
        self._receiving += 1
        try:
            await self._check(self.files.check, 0)
            yield
        finally:
            self._receiving -= 1

    async def submit(self, ticket: Ticket, file: UploadFile) -> int:
        """Store the file, and return the number of files before it.

        Raises:
            RefusedError: there is no room, or the file cannot be written.
        """
        position = await self._check(self.files.put, ticket, file.file)
        # For gateways that do not share the folder: the client may ask one of them at once.
        await self._server.redis_metadata.write_session(
            ticket.job_id, status="queued", tenant=ticket.tenant
        )
        FILE_JOBS.labels("submitted").inc()
        self._changed.set()
        return position

    async def _check(self, call: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except FullError as error:
            raise RefusedError(429, "too_many_jobs", f"{error}; try again later") from error
        except OSError as error:
            self._log.error("file_job_not_kept", error=error.strerror)
            raise RefusedError(503, "not_kept", "the file could not be kept") from error

    async def run(self) -> None:
        """Recognise waiting files, until cancelled."""
        try:
            await self._or_log(asyncio.to_thread(self.files.sweep))
            while True:
                self._changed.clear()
                await self._or_log(self._begin_due())
                try:
                    async with asyncio.timeout(POLL_S):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _or_log(self, work: Awaitable[None]) -> None:
        # The gateway may be out of descriptors for a while, or the folder unreadable.
        try:
            await work
        except OSError as error:
            self._log.error("file_jobs_not_read", error=error.strerror)

    async def _begin_due(self) -> None:
        waiting = await asyncio.to_thread(self.files.waiting)
        for job_id in self._not_before_s.keys() - waiting:
            del self._not_before_s[job_id]
        for job_id in waiting:
            if len(self._running) >= RUNNING_MAX or self._server.gate.draining:
                return
            due = time.monotonic() >= self._not_before_s.get(job_id, 0.0)
            if due and job_id not in self._running and (file := self._take(job_id)):
                self._running[job_id] = asyncio.create_task(self._work(file))

    def _take(self, job_id: str) -> JobFile | None:
        try:
            return self.files.take(job_id)
        except OSError as error:  # Continue: other files may be readable.
            self._log.error("file_job_not_read", session_id=job_id, error=error.strerror)
            self._not_before_s[job_id] = time.monotonic() + RETRY_S
            return None

    async def _work(self, file: JobFile) -> None:
        job_id = file.ticket.job_id
        try:
            if (event := await self._recognise(file)) is not None:
                file.remove()
                FILE_JOBS.labels(event).inc()
        except Exception:
            self._log.exception("file_job_failed", session_id=job_id)
        finally:
            file.close()
            self._not_before_s[job_id] = time.monotonic() + RETRY_S
            del self._running[job_id]
            self._changed.set()

    async def _recognise(self, file: JobFile) -> str | None:
        """Return the outcome of the job; None: try again."""
        start = start_of(file.ticket)
        if file.attempts >= ATTEMPTS_MAX:
            return await self._give_up(file, start)
        model = self._server.models.choose(start)
        if isinstance(model, e.Problem):
            return None  # It has no worker now, but may get one.
        caller = file.ticket.caller()
        if await self._server.gate.enter(model=model.name, lane="bulk", caller=caller) is not None:
            return None
        try:
            return await self._run_session(file, start)
        finally:
            self._server.gate.leave(caller)

    async def _give_up(self, file: JobFile, start: e.Start) -> str | None:
        """Store the failure. Otherwise the job would be ``processing`` until its session is
        ``lost``."""
        found = await self._reserve(file, start)
        if not isinstance(found, SessionRunner):
            return found
        if found.session.state is State.NEW:
            found.open(AnswerQueue())
            found.begin(start)
        if found.session.over:
            return "finished"
        found.give_up(GIVEN_UP)
        self._log.error("file_job_given_up", session_id=file.ticket.job_id)
        return "given_up"

    async def _reserve(self, file: JobFile, start: e.Start) -> SessionRunner | str | None:
        """Return the job's session, or its outcome as ``_recognise``."""
        runner = self._server.registry.new_runner(file.ticket.caller(), _TRAITS)
        found = await self._server.registry.reserve_or_resume(runner, start)
        if isinstance(found, e.Problem):
            return "deleted" if found.code == "not_resumable" else None
        return found

    async def _run_session(self, file: JobFile, start: e.Start) -> str | None:
        queue = AnswerQueue()
        found = await self._reserve(file, start)
        if not isinstance(found, SessionRunner):
            return found
        if found.session.state is State.NEW:
            file.note_attempts(file.attempts + 1)
            found.open(queue)
            found.begin(start)
        else:
            found.attach(queue, None)
        feeding: asyncio.Task[None] | None = None
        try:
            while (answer := await queue.answers.get()) is not None:
                if isinstance(answer, e.Started | e.Resumed):
                    chunk = answer.next_chunk_index
                    feeding = asyncio.create_task(_feed(found, queue, file, chunk))
                if isinstance(answer, e.Finished):
                    # Otherwise its rows are not committed yet: resume it again later.
                    return "finished" if answer.stored else None
            if self._server.gate.draining:
                file.note_attempts(max(0, file.attempts - 1))
            return None
        finally:
            if feeding is not None:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            found.detach(queue)


def start_of(ticket: Ticket) -> e.Start:
    return e.Start(
        session_id=ticket.job_id,
        mode="stream",
        sample_rate_hz=16_000,
        model=ticket.model,
        language=ticket.language,
        resume_token=ticket.resume_token,
        encoded=True,
    )


async def _feed(runner: SessionRunner, queue: AnswerQueue, file: JobFile, chunk_index: int) -> None:
    try:
        while not runner.session.over:
            data = await asyncio.to_thread(file.read, chunk_index * READ_BYTES, READ_BYTES)
            if not data:
                break
            chunk = e.Chunk(data=data, chunk_index=chunk_index, session_id=None)
            await asyncio.shield(runner.take(queue, chunk))
            chunk_index += 1
        await runner.take(queue, e.Finish(session_id=file.ticket.job_id))
    except Exception:
        runner.fail()


def add_file_jobs(app: FastAPI, server: Server, jobs: FileJobs) -> None:
    _add_submit(app, server, jobs)
    _add_changes(app, server, jobs)

    @app.get(
        "/api/v1/asr/result/{task_id}",
        tags=[FILES],
        response_model=TaskAnswer,
        responses=PROBLEMS,
        dependencies=[WARNS_OF_UNKNOWN],
    )
    async def result(request: Request, task_id: SessionId) -> Any:
        """The state of a submitted file, and its text when it is done."""
        return await find_task(server, jobs, task_id, caller_of(request).tenant)

    @app.get(
        "/api/v1/asr/history",
        tags=[FILES],
        response_model=TasksAnswer,
        responses={503: PROBLEMS[503]},
    )
    async def history(
        request: Request,
        warnings: Warnings,
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
    ) -> dict[str, Any]:
        """The newest sessions, with their whole texts. `/api/v1/history` has pages and filters."""
        asked = HistoryQuery(tenant=caller_of(request).tenant, limit=limit, texts=True)
        page = await server.reader.history(asked)
        records = [
            {
                "task_id": row["session_id"],
                "text": row["text"],
                "created_at": row["created_at"],
                "duration": row["duration"],
                "status": _STATUS.get(row["status"], "processing"),
            }
            for row in page.records
        ]
        return {"total": len(records), "records": records, "warnings": to_builtins(warnings)}


def _add_changes(app: FastAPI, server: Server, jobs: FileJobs) -> None:
    @app.post(
        "/api/v1/asr/retry/{task_id}",
        tags=[FILES],
        response_model=SubmittedAnswer,
        responses={**PROBLEMS, 400: {"model": ProblemAnswer}},
        dependencies=[WARNS_OF_UNKNOWN],
    )
    async def retry(request: Request, task_id: SessionId) -> None:
        """Refused: jobs are retried automatically, and no audio is kept after the last attempt.
        Submit the file again."""
        found = await find_task(server, jobs, task_id, caller_of(request).tenant)
        if found["status"] != "failed":
            raise RefusedError(400, "not_failed", "the task has not failed")
        message = "no audio is kept after recognition: submit the file again"
        raise RefusedError(404, "audio_not_found", message)

    @app.delete(
        "/api/v1/asr/task/{task_id}",
        tags=[FILES],
        response_model=TaskDeletedAnswer,
        responses={**PROBLEMS, 202: {"model": TaskDeletedAnswer}},
        dependencies=[WARNS_OF_UNKNOWN],
    )
    async def delete(request: Request, task_id: SessionId, response: Response) -> Any:
        """Delete a submitted file, or its session."""
        tenant = caller_of(request).tenant
        here = await asyncio.to_thread(jobs.files.owner, task_id) == tenant
        if here:
            await asyncio.to_thread(jobs.files.remove, task_id)
        if here or await server.redis_metadata.session_status(task_id, tenant) == "queued":
            # It has no session yet, or its file is on another host. Deleting its id keeps a session
            # from starting.
            committed = await server.delete(task_id, tenant)
        else:
            committed = await delete_session(server, request, task_id)
        return {"task_id": task_id, **deleted_body(response, committed)}


def _add_submit(app: FastAPI, server: Server, jobs: FileJobs) -> None:
    @app.post(
        "/api/v1/asr/submit",
        tags=[FILES],
        response_model=SubmittedAnswer,
        openapi_extra=_REQUEST_BODY,
        responses=_REFUSALS,
    )
    async def submit(
        request: Request,
        warnings: Warnings,
        language: Annotated[str, Query(max_length=LANGUAGE_CHARS_MAX, pattern=r"^[ -~]*$")] = "",
        batch_size: Annotated[str, Query(description="No effect: workers form batches")] = "",
    ) -> Any:
        """Submit a file, which is recognised after live speech. `/api/v1/asr/result/{task_id}`
        has its status and its text."""
        if (refusal := server.gate.refuse_audio(caller_of(request))) is not None:
            raise RefusedError.not_admitted(refusal)
        async with jobs.receiving():
            form = await receive(request, jobs.file_bytes_max)
            try:
                fields = {name: values[-1] for name, values in text_fields(form).items()}
                ticket = _ticket(server, request, language, fields)
                file = form.get("audio", form.get("file"))
                if not isinstance(file, UploadFile):
                    message = "send the file as the field audio, with a filename"
                    raise RefusedError(400, "missing_file", message)
                await check_kind(file)
                position = await jobs.submit(ticket, file)
            finally:
                await form.close()
        ignored = sorted(fields.keys() - {"language", "model"})
        ignored += ["batch_size"] if batch_size else []
        load = server.admission.load(time.monotonic())
        return {
            "task_id": ticket.job_id,
            "position": position,
            "estimated_wait": math.ceil(load.est_wait_ms / 1000) if load is not None else 0,
            "warnings": to_builtins([*warnings, *ignored_fields(ignored)]),
        }


def _ticket(server: Server, request: Request, language: str, fields: dict[str, str]) -> Ticket:
    language = language or fields.get("language", "")
    model = fields.get("model", "")
    if len(language) > LANGUAGE_CHARS_MAX or not language.isprintable():
        raise RefusedError(400, "invalid_value", "language: too long, or not printable")
    if len(model) > MODEL_CHARS_MAX:
        raise RefusedError(400, "invalid_value", "model: too long")
    caller = caller_of(request)
    ticket = Ticket(
        job_id=str(uuid.uuid4()),
        resume_token=secrets.token_urlsafe(24),
        client=caller.address,
        language=language,
        model="" if openai.is_openais(model) else model,
        tenant=caller.tenant,
        token_name=caller.token_name,
        limits=caller.limits,
    )
    chosen = server.models.choose(start_of(ticket))
    if isinstance(chosen, e.Problem):
        raise RefusedError(404, chosen.code, chosen.message)
    return ticket


async def find_task(server: Server, jobs: FileJobs, task_id: str, tenant: str) -> dict[str, Any]:
    """Return the ``TaskAnswer`` of a job of the tenant, or of any other session.

    Raises:
        RefusedError: there is none.
        StoreUnavailable: the database does not answer, and no file waits here.
    """
    if await asyncio.to_thread(jobs.files.owner, task_id) == tenant:
        status = "processing" if server.is_here(task_id, tenant) else "queued"
        return {"task_id": task_id, "status": status}
    stored = await server.reader.session(task_id, tenant)
    if stored is None:
        noted = await server.redis_metadata.session_status(task_id, tenant)
        if noted is None:
            raise RefusedError(404, "not_found", "no such task")
        return {"task_id": task_id, "status": "queued" if noted == "queued" else "processing"}
    status = _STATUS.get(stored["status"], "processing")
    error = stored["error"] or {}
    if status == "failed" and not error:
        error = _ENDED_EARLY
    return {
        "task_id": task_id,
        "status": status,
        "text": text_of(stored) if status != "processing" else None,
        "duration": stored["duration"],
        "created_at": stored["created_at"],
        "error": error.get("message"),
        "error_code": error.get("code"),
    }


_REQUEST_BODY = form_body(
    "audio",
    "A file of at most UPLOAD_BYTES_MAX bytes",
    {"language": {"type": "string"}, "model": {"type": "string"}},
)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "model": ProblemAnswer}
    for status, description in {
        400: "An invalid field or form, or a file that is no audio",
        404: "No worker serves the model",
        408: "The upload has stopped, or is too slow",
        413: "The file is larger than UPLOAD_BYTES_MAX or JOBS_BYTES_MAX",
        415: "Neither a multipart form nor JSON",
        429: "JOBS_MAX or JOBS_BYTES_MAX is reached, or a limit of the token: see Retry-After",
        499: "The client has disconnected",
        503: "The disk does not take the file: see Retry-After",
    }.items()
}
