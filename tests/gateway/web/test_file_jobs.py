"""Refusals of submitted files, and their status. The rest: tests/integration."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import httpx2
import pytest
from fastapi import FastAPI

from gateway.admission.policy import Refusal
from gateway.dialects.fields import NAMES_SHOWN_MAX
from gateway.server import Server
from gateway.session import events as e
from gateway.session.models import ServedModels
from gateway.session.resume import NOT_RESUMABLE
from gateway.session.runner import SessionRunner
from gateway.session.states import State
from gateway.storage.callers import Caller
from gateway.storage.job_files import JobFile, Ticket
from gateway.web.errors import answer_errors
from gateway.web.file_jobs import ATTEMPTS_MAX, GIVEN_UP, FileJobs, add_file_jobs
from wire.messages import Failure, ServedModel

WAV = b"RIFF\0\0\0\0WAVEfmt "


class Gateway:
    """The parts of ``Server`` that a job reaches before it has a session."""

    def __init__(self, folder: Path, **limits: int) -> None:
        values = {"jobs_max": 2, "jobs_bytes_max": 2_000, "upload_bytes_max": 1_500}
        self.settings = SimpleNamespace(
            jobs_directory=folder / "jobs", **{**values, "uploads_max": 1, **limits}
        )
        self.models = ServedModels("demo")
        self.models.note((ServedModel(name="demo", model="demo", workers=1),), 0.0)
        self.noted: dict[str, str] = {}
        self.stored: dict[str, dict[str, Any]] = {}
        self.redis_metadata = SimpleNamespace(
            write_session=self._note,
            session_status=self._noted,
        )
        self.reader = SimpleNamespace(session=self._stored)
        self.gate = SimpleNamespace(
            draining=False, enter=self._enter, refuse_audio=lambda _caller: None
        )
        self.entered: asyncio.Queue[str] = asyncio.Queue()
        self.admission = SimpleNamespace(load=lambda _now_s: None)
        self.given_up: list[tuple[str, Failure]] = []
        self.registry = SimpleNamespace(
            new_runner=lambda *_: None, reserve_or_resume=self._reserve_or_resume
        )
        self.jobs = FileJobs(cast(Server, self))

    async def _reserve_or_resume(self, _new: None, start: e.Start) -> SessionRunner | e.Problem:
        if start.session_id == "deleted":
            return NOT_RESUMABLE
        over = start.session_id == "complete"
        runner = Mock(SessionRunner, session=SimpleNamespace(state=State.NEW, over=over))
        runner.give_up = lambda failure: self.given_up.append((start.session_id, failure))
        return runner

    def is_here(self, _session_id: str, _tenant: str) -> bool:
        return False

    async def _note(self, job_id: str, *, status: str, tenant: str) -> None:
        self.noted[job_id] = status

    async def _noted(self, job_id: str, _tenant: str) -> str | None:
        return self.noted.get(job_id)

    async def _stored(self, job_id: str, _tenant: str) -> dict[str, Any] | None:
        return self.stored.get(job_id)

    async def _enter(self, model: str, lane: str, caller: Caller) -> Refusal:
        self.entered.put_nowait(f"{model} {lane}")
        return Refusal(code="no_worker", message="no worker", retry_after_s=1)

    async def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        app = FastAPI()
        answer_errors(app)
        add_file_jobs(app, cast(Server, self), self.jobs)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, f"/api/v1/asr/{path}", **options)

    async def submit(self, content: bytes = WAV, path: str = "submit", **fields: str) -> Any:
        files = {"audio": ("a.wav", content)}
        return await self.ask("POST", path, files=files, data=fields)


async def test_files_are_limited_in_number_and_bytes(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    first = await gateway.submit(WAV + bytes(1_000), "submit?language=zh", batch_size="1")
    assert first.status_code == 200 and first.json()["position"] == 0
    assert [each["message"] for each in first.json()["warnings"]] == [
        "batch_size: this field has no effect"
    ]
    full = await gateway.submit(WAV + bytes(1_000))
    assert (full.status_code, full.json()["code"]) == (429, "too_many_jobs")
    many: Any = {f"{n:0100}": "" for n in range(NAMES_SHOWN_MAX + 1)}
    second = await gateway.submit(**many)
    assert second.json()["position"] == 1
    assert len(second.json()["warnings"]) == NAMES_SHOWN_MAX
    full = await gateway.submit()
    assert (full.status_code, full.json()["code"]) == (429, "too_many_jobs")
    assert full.headers["Retry-After"]


@pytest.mark.parametrize(
    ("content", "fields", "limits", "status", "code"),
    [
        (WAV, {}, {"uploads_max": 0}, 429, "too_many_uploads"),
        (bytes(1_100_000), {}, {}, 413, "file_too_large"),
        (b"", {}, {}, 400, "empty_file"),
        (b"no audio at all, but text" * 9, {}, {}, 400, "unsupported_format"),
        (WAV, {"language": "x" * 33}, {}, 400, "invalid_value"),
        (WAV, {"model": "other"}, {}, 404, "unknown_model"),
    ],
)
async def test_refusals(
    tmp_path: Path,
    content: bytes,
    fields: dict[str, str],
    limits: dict[str, int],
    status: int,
    code: str,
) -> None:
    gateway = Gateway(tmp_path, **limits)
    answer = await gateway.submit(content, **fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert gateway.jobs.files.waiting() == []


async def test_a_disk_that_takes_nothing_is_a_503(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_bytes(b"not a folder")
    answer = await Gateway(tmp_path).submit()
    assert (answer.status_code, answer.json()["code"]) == (503, "not_kept")


async def test_the_sources_of_a_task(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    task_id = (await gateway.submit()).json()["task_id"]
    assert gateway.noted == {task_id: "queued"}
    reported: dict[str, str] = {}
    gateway.noted["elsewhere"] = "queued"
    gateway.noted["begun elsewhere"] = "active"
    row = {"duration": 1.5, "created_at": "now", "text": "one", "error": None, "segments": []}
    for status in ("active", "completed", "interrupted", "abandoned", "lost"):
        gateway.stored[status] = {**row, "status": status}
    for name in (task_id, "elsewhere", *gateway.stored):
        answer = await gateway.ask("GET", f"result/{name}")
        reported[name] = answer.json()["status"]
    assert reported == {
        task_id: "queued",
        "elsewhere": "queued",
        "active": "processing",
        "completed": "done",
        "interrupted": "processing",
        "abandoned": "failed",
        "lost": "failed",
    }
    lost = (await gateway.ask("GET", "result/lost")).json()
    assert (lost["error_code"], lost["text"]) == ("ended_early", "one")
    assert (await gateway.ask("GET", "result/unknown")).status_code == 404


async def test_a_job_that_is_not_admitted_waits_and_one_that_began_often_is_given_up(
    tmp_path: Path,
) -> None:
    gateway = Gateway(tmp_path)
    files = gateway.jobs.files
    for job_id in ("waits", "began"):
        files.put(Ticket(job_id=job_id, resume_token="t", client=""), io.BytesIO(WAV))
    began = files.take("began")
    assert began is not None
    began.note_attempts(ATTEMPTS_MAX)
    began.close()
    running = asyncio.create_task(gateway.jobs.run())
    async with asyncio.timeout(10):
        assert await gateway.entered.get() == "demo bulk"
        while files.waiting() != ["waits"]:
            await asyncio.sleep(0.01)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    again = files.take("waits")
    assert again is not None and again.attempts == 0
    again.close()


@pytest.mark.parametrize(
    ("job_id", "outcome"),
    [("began", "given_up"), ("deleted", "deleted"), ("complete", "finished")],
)
async def test_the_failure_of_a_job_that_is_given_up_is_stored(
    tmp_path: Path, job_id: str, outcome: str
) -> None:
    gateway = Gateway(tmp_path)
    gateway.jobs.files.put(Ticket(job_id=job_id, resume_token="t", client=""), io.BytesIO(WAV))
    file = gateway.jobs.files.take(job_id)
    assert file is not None
    file.note_attempts(ATTEMPTS_MAX)
    assert await gateway.jobs._recognise(file) == outcome
    assert gateway.given_up == ([(job_id, GIVEN_UP)] if outcome == "given_up" else [])
    file.close()


async def test_jobs_continue_after_a_time_without_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(tmp_path)
    files = gateway.jobs.files
    for job_id in ("unreadable", "readable"):
        files.put(Ticket(job_id=job_id, resume_token="t", client=""), io.BytesIO(WAV))
    read, list_files, failures = files.take, files.waiting, [errno.EMFILE]

    def waiting() -> list[str]:
        if failures:
            raise OSError(failures.pop(), "no descriptor")
        return list_files()

    def take(job_id: str) -> JobFile | None:
        if job_id == "unreadable":
            raise PermissionError(errno.EACCES, "not ours")
        return read(job_id)

    monkeypatch.setattr(files, "waiting", waiting)
    monkeypatch.setattr(files, "take", take)
    running = asyncio.create_task(gateway.jobs.run())
    async with asyncio.timeout(10):
        assert await gateway.entered.get() == "demo bulk"
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
