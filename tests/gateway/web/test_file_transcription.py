"""Refused files, and the release of their slots. Transcripts: tests/integration/test_openai.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY

from gateway.admission.policy import Refusal
from gateway.server import Server
from gateway.session import events as e
from gateway.session.limits import Traits
from gateway.session.models import ServedModels
from gateway.session.states import State
from gateway.storage.callers import Caller
from gateway.web.errors import RETRY_AFTER_S, RefusedError, answer_errors
from gateway.web.file_transcription import AnswerQueue, FileSession, Transcriber
from gateway.web.openai import add_transcriptions
from wire.messages import Abilities, Lane, ServedModel

DEMO = ServedModel(name="demo", model="demo", workers=1)
OTHER = ServedModel(
    name="iic/other", model="iic/other", workers=2, abilities=Abilities(hotwords="words")
)


class Gate:
    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.refusals: dict[str, Refusal] = {}
        self.entered = 0

    def model_of(self, asked: str) -> str | None:
        return None

    def enter_model(self, model: str, lane: Lane) -> Refusal | None:
        assert lane == "bulk"
        return self.refusals.get(model)

    async def enter(self, model: str | None, lane: Lane, caller: Caller) -> Refusal | None:
        assert lane == "bulk"
        if self.refusal is None:
            self.entered += 1
        return self.refusal

    def leave(self, caller: Caller) -> None:
        self.entered -= 1


class Gateway:
    """The parts of ``Server`` that a refused upload reaches."""

    def __init__(self, uploads_max: int = 1) -> None:
        self.settings = SimpleNamespace(uploads_max=uploads_max, upload_bytes_max=1_000)
        self.gate = Gate()
        self.models = ServedModels("demo")
        self.models.note((DEMO, OTHER), 0.0)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def client_of(gateway: Gateway) -> httpx2.AsyncClient:
    app = FastAPI()
    server = cast(Server, gateway)
    answer_errors(app)
    add_transcriptions(app, server, Transcriber(server))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway")


async def post(
    gateway: Gateway, content: bytes = b"RIFF", **fields: str | list[str]
) -> httpx2.Response:
    async with client_of(gateway) as client:
        return await client.post(
            "/v1/audio/transcriptions", files={"file": ("a.wav", content)}, data=fields
        )


def answers_of(status: int) -> float:
    labels = {"status": str(status)}
    return REGISTRY.get_sample_value("asr_gateway_uploads_total", labels) or 0.0


def code_of(response: httpx2.Response) -> str:
    return str(response.json()["error"]["code"])


async def test_more_uploads_than_the_limit_are_refused() -> None:
    response = await post(Gateway(uploads_max=0), model="demo")
    assert (response.status_code, code_of(response)) == (429, "too_many_uploads")
    assert response.headers["Retry-After"] == str(RETRY_AFTER_S)


async def test_a_refused_admission_is_a_503_with_retry_after(gateway: Gateway) -> None:
    gateway.gate.refusal = Refusal(code="no_worker", message="no worker", retry_after_s=1)
    for _ in range(2):  # The first does not occupy the only slot.
        response = await post(gateway, model="demo")
        assert (response.status_code, code_of(response)) == (503, "no_worker")
        assert response.headers["Retry-After"] == "1"
    assert gateway.gate.entered == 0


@pytest.mark.parametrize(
    ("content", "fields", "status", "code"),
    [
        (b"not audio at all" * 8, {"model": "demo"}, 400, "unsupported_format"),
        (b"", {"model": "demo"}, 400, "empty_file"),
        (bytes(2_000_000), {"model": "demo"}, 413, "file_too_large"),
        (b"RIFF", {"model": "demo", "response_format": "pdf"}, 400, "invalid_value"),
    ],
)
async def test_a_refused_file_releases_its_slot(
    gateway: Gateway, content: bytes, fields: dict[str, str], status: int, code: str
) -> None:
    counted = answers_of(status)
    for _ in range(2):
        response = await post(gateway, content, **fields)
        assert (response.status_code, code_of(response)) == (status, code)
    assert gateway.gate.entered == 0
    assert answers_of(status) == counted + 2


async def test_a_form_without_a_file_is_refused(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        response = await client.post(
            "/v1/audio/transcriptions", files={"model": (None, "demo")}, data={}
        )
        empty = await client.post("/v1/audio/transcriptions", files={"file": (None, "RIFF")})
        large = {"file": (None, "R" * 100_000)}
        long = await client.post("/v1/audio/transcriptions", files=large)
    assert (response.status_code, code_of(response)) == (400, "missing_required_parameter")
    for unnamed in (empty, long):
        assert unnamed.status_code == 400 and "no filename" in unnamed.text.replace(
            "without a", "no"
        )


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "demo"}, 400, "missing_required_parameter"),
        ({"input_audio": {"data": "UklGRg==", "format": "wav"}}, 400, "missing_required_parameter"),
        ({"input_audio": {"data": "*"}, "model": "demo"}, 400, "bad_base64"),
        ({"input_audio": {"data": 1}, "model": "demo"}, 400, "bad_message"),
        ({"input_audio": {"data": ""}, "model": "demo"}, 400, "empty_file"),
        ({"input_audio": "UklGRg==", "model": "\ud800"}, 400, "bad_message"),
        ({"input_audio": "UklGRg==", "model": "no", "\ud800": ""}, 400, "bad_message"),
        ({"input_audio": {"data": "AA" * (12 << 20)}}, 413, "file_too_large"),
        ([], 400, "bad_message"),
        # It gets as far as the model.
        ({"input_audio": "UklGRg==", "model": "no", "stream": False, "temperature": 0}, 404, None),
    ],
)
async def test_a_file_in_json(gateway: Gateway, body: Any, status: int, code: str | None) -> None:
    async with client_of(gateway) as client:
        response = await client.post(
            "/v1/audio/transcriptions",
            content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )
    assert response.status_code == status
    assert code is None or code_of(response) == code
    assert gateway.gate.entered == 0


@pytest.mark.parametrize("model", ["iic/other", "whisper-1"])
async def test_a_model_without_room_refuses_its_files_only(gateway: Gateway, model: str) -> None:
    gateway.gate.refusals["iic/other"] = Refusal(code="no_worker", message="", retry_after_s=1)
    response = await post(gateway, b"no audio", model=model)
    # The name of a model of OpenAI means the default.
    expected = (503, "no_worker") if model == "iic/other" else (400, "unsupported_format")
    assert (response.status_code, code_of(response)) == expected
    assert gateway.gate.entered == 0


async def no_events() -> AsyncIterator[e.ClientEvent]:
    return
    yield


@pytest.mark.parametrize(
    ("end", "status", "code", "retries"),
    [
        (lambda queue: queue.close(1012, "service restart"), 503, "draining", True),
        (lambda queue: queue.answer(e.Problem(code="deleted", message="")), 410, "deleted", False),
        (lambda queue: queue.close(1011, "internal error"), 500, "ended", False),
    ],
)
async def test_a_session_that_ends_early(
    end: Callable[[AnswerQueue], None], status: int, code: str, retries: bool
) -> None:
    queues: list[AnswerQueue] = []
    registry = SimpleNamespace(new_runner=lambda *_: SimpleNamespace(open=queues.append))
    server = cast(Server, SimpleNamespace(registry=registry))
    session = FileSession(server, Caller(), cast(Traits, None), no_events())
    end(queues[0])
    with pytest.raises(RefusedError) as refused:
        async for _answer in session.answers():
            pass
    assert (refused.value.status, refused.value.code) == (status, code)
    assert (refused.value.retry_after_s is not None) is retries


async def test_a_file_is_received_before_its_session_has_taken_the_end() -> None:
    """The end waits for results. A client that disconnects is noticed meanwhile."""
    taken: list[e.ClientEvent] = []
    waiting = asyncio.Event()

    async def take(_queue: AnswerQueue, event: e.ClientEvent) -> None:
        taken.append(event)
        if isinstance(event, e.Finish):
            waiting.set()
            await asyncio.Event().wait()

    async def reserved(*_: Any) -> Any:
        return runner

    async def events() -> AsyncIterator[e.ClientEvent]:
        yield e.Start(session_id="s", mode="stream", sample_rate_hz=16_000)
        yield e.Chunk(data=b"a")
        assert not session.received
        yield e.Finish(session_id="s")

    runner = SimpleNamespace(
        open=lambda queue: None,
        begin=taken.append,
        take=take,
        detach=lambda queue: None,
        session=SimpleNamespace(state=State.ACTIVE, over=False),
    )
    registry = SimpleNamespace(new_runner=lambda *_: runner, reserve_or_resume=reserved)
    server = cast(Server, SimpleNamespace(registry=registry))
    session = FileSession(server, Caller(), cast(Traits, None), events())
    answering = asyncio.ensure_future(anext(session.answers()))
    await waiting.wait()
    assert session.received and len(taken) == 3
    answering.cancel()
    await session.close()
