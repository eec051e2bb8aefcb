"""Files submitted for later: recognised after a restart of the gateway, readable at any gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from tests.conftest import EmbeddedServices
from tests.integration.speech import spoken
from tools.lab.encoded_audio import encode
from tools.lab.harness import database
from tools.lab.harness.stack import Stack, running_stack

JOBS_MAX = 3


@pytest.fixture(scope="module")
def stack(embedded_services: EmbeddedServices) -> Iterator[Stack]:
    url = database.create(embedded_services.database_url, "file_jobs")
    settings = {"JOBS_MAX": str(JOBS_MAX), "BROKER_LEASE_S": "60"}
    with running_stack(url, embedded_services.redis_url, **settings) as running:
        running.start_all()
        # Another host: the same database and Redis, and a folder of its own.
        running.start("gateway2", DATA_DIR=str(running.directory / "elsewhere"))
        running.wait_ready("gateway2")
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(timeout=60) as client:
        yield client


async def submit(
    http: httpx2.AsyncClient, stack: Stack, content: bytes, query: str = ""
) -> httpx2.Response:
    url = f"{stack.http_url()}/api/v1/asr/submit{query}"
    return await http.post(url, files={"audio": ("speech.mp3", content, "audio/mpeg")})


async def result(http: httpx2.AsyncClient, stack: Stack, task_id: str, gateway: str) -> Any:
    """It is unknown to a gateway that has had no answer of Redis in time."""
    async with asyncio.timeout(60):
        while True:
            answer = await http.get(f"{stack.http_url(gateway)}/api/v1/asr/result/{task_id}")
            if answer.status_code != 404:
                assert answer.status_code == 200, answer.text
                return answer.json()
            await asyncio.sleep(0.1)


async def ended(
    http: httpx2.AsyncClient, stack: Stack, task_id: str, gateway: str = "gateway"
) -> Any:
    async with asyncio.timeout(60):
        while True:
            found = await result(http, stack, task_id, gateway)
            if found["status"] not in ("queued", "processing"):
                return found
            await asyncio.sleep(0.1)


async def test_submit_poll_result(stack: Stack, http: httpx2.AsyncClient) -> None:
    audio = spoken(8_100, digits=(12, 12))
    answer = await submit(
        http, stack, encode(audio.pcm, "mp3", 16_000, 1), "?language=zh&batch_size=500"
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["status"], body["position"]) == ("queued", 0)
    assert [warning["code"] for warning in body["warnings"]] == ["field_ignored"]
    task_id = body["task_id"]
    for gateway in ("gateway2", "gateway"):
        done = await ended(http, stack, task_id, gateway)
        assert (done["status"], done["text"], done["error"]) == ("done", audio.text, None)
        assert done["duration"] == pytest.approx(len(audio.pcm) / 16_000, abs=0.1)
    history = await http.get(f"{stack.http_url('gateway2')}/api/v1/asr/history?limit=1")
    (record,) = history.json()["records"]
    assert (record["task_id"], record["text"]) == (task_id, audio.text)
    assert record["status"] == "done"
    await no_audio_is_kept(stack)
    session = await http.get(f"{stack.http_url()}/api/v1/session/{task_id}")
    assert session.json()["text"] == audio.text
    retry = await http.post(f"{stack.http_url()}/api/v1/asr/retry/{task_id}")
    assert (retry.status_code, retry.json()["code"]) == (400, "not_failed")


async def test_a_damaged_file_has_failed_everywhere(stack: Stack, http: httpx2.AsyncClient) -> None:
    task_id = (await submit(http, stack, b"fLaC" + b"x" * 10_000)).json()["task_id"]
    failed = await ended(http, stack, task_id, "gateway2")
    assert (failed["status"], failed["error_code"]) == ("failed", "bad_audio")
    assert failed["error"] and not failed["text"]
    retry = await http.post(f"{stack.http_url()}/api/v1/asr/retry/{task_id}")
    assert (retry.status_code, retry.json()["code"]) == (404, "audio_not_found")


async def test_unknown_tasks_and_files_that_are_no_audio(
    stack: Stack, http: httpx2.AsyncClient
) -> None:
    for method, path in (("GET", "result"), ("POST", "retry"), ("DELETE", "task")):
        answer = await http.request(method, f"{stack.http_url()}/api/v1/asr/{path}/unknown")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await submit(http, stack, b"plain text, and no audio at all" * 9)
    assert (answer.status_code, answer.json()["code"]) == (400, "unsupported_format")
    url = f"{stack.http_url()}/api/v1/asr/submit"
    missing = await http.post(url, files={"other": ("a.wav", b"RIFF")})
    assert (missing.status_code, missing.json()["code"]) == (400, "missing_file")


async def test_files_wait_without_workers_and_over_a_restart(
    stack: Stack, http: httpx2.AsyncClient
) -> None:
    """Bounded in number; deleted ones are not recognised."""
    stack.processes.pop("asr_worker").stop()
    audios = [spoken(8_200 + number, digits=(6, 6)) for number in range(JOBS_MAX)]
    files = [encode(audio.pcm, "wav", 16_000, 1) for audio in audios]
    tasks = [(await submit(http, stack, file)).json()["task_id"] for file in files]
    refused = await submit(http, stack, files[0])
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
    assert refused.headers["Retry-After"]
    for gateway in ("gateway", "gateway2"):
        assert (await result(http, stack, tasks[0], gateway))["status"] in ("queued", "processing")
    # One at the gateway that has its file, and one at another.
    for gateway, task_id in (("gateway", tasks[1]), ("gateway2", tasks[2])):
        url = f"{stack.http_url(gateway)}/api/v1/asr/task/{task_id}"
        deleted = await http.delete(url)
        # 202: it is not committed within two seconds.
        assert deleted.status_code in (200, 202), deleted.text
    stack.processes.pop("gateway").stop()
    stack.start("asr_worker", ASR_WORKERS="1")
    stack.start("gateway")
    await asyncio.to_thread(stack.wait_ready)
    done = await ended(http, stack, tasks[0])
    assert (done["status"], done["text"]) == ("done", audios[0].text)
    await no_audio_is_kept(stack)
    for task_id in tasks[1:]:
        answer = await http.get(f"{stack.http_url()}/api/v1/asr/result/{task_id}")
        assert answer.status_code == 404


async def no_audio_is_kept(stack: Stack) -> None:
    async with asyncio.timeout(60):
        while list((stack.data / "jobs").glob("*.job")):
            await asyncio.sleep(0.1)


async def begun(http: httpx2.AsyncClient, stack: Stack, task_id: str) -> None:
    """Wait until a part of the job's audio is taken, and the other gateway knows that it began."""
    async with asyncio.timeout(60):
        while True:
            answer = await http.get(f"{stack.http_url()}/api/v1/session/{task_id}")
            if answer.status_code == 200 and answer.json()["chunk_count"]:
                elsewhere = await result(http, stack, task_id, "gateway2")
                if elsewhere["status"] == "processing":
                    return
            await asyncio.sleep(0.05)


async def end_gateway(stack: Stack, *, kill: bool) -> None:
    gateway = stack.processes.pop("gateway")
    await asyncio.to_thread(gateway.kill if kill else gateway.stop)


@pytest.mark.parametrize("kill", [False, True])
async def test_a_job_that_was_interrupted_continues(
    stack: Stack, http: httpx2.AsyncClient, kill: bool
) -> None:
    audio = spoken(8_300 + kill, digits=(30, 30))
    workers = stack.living("asr_worker")
    for worker in workers:
        worker.suspend()  # It is counted until its lease ends, and answers nothing.
    try:
        file = encode(audio.pcm, "mp3", 16_000, 1)
        task_id = (await submit(http, stack, file)).json()["task_id"]
        await begun(http, stack, task_id)
        await end_gateway(stack, kill=kill)
        assert len(list((stack.data / "jobs").glob("*.job"))) == 1
        assert (await result(http, stack, task_id, "gateway2"))["status"] == "processing"
    finally:
        for worker in workers:
            worker.resume()
    stack.start("gateway")
    await asyncio.to_thread(stack.wait_ready)
    done = await ended(http, stack, task_id)
    assert (done["status"], done["text"]) == ("done", audio.text)
