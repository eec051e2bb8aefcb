"""Two models side by side: their sessions, and the loss of the workers of one."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator

import pytest

from asr_client import FinalResult, ServerBusyError, Session, SessionError, connect
from tests.conftest import EmbeddedServices
from tests.integration.speech import chunks_of, spoken
from tools.lab.harness import database
from tools.lab.harness.stack import Stack, running_stack, wait_until

HASH = re.compile(r"[0-9a-f]{16}( [0-9a-f]{16})*")
"""Texts of the fake recogniser."""
B = {"ASR_MODEL": "", "ASR_MODELS": "b=fake:50ms"}
WAIT_S = 60.0
AUDIO = spoken(8_100, digits=(4, 4))


@pytest.fixture(scope="module")
def two(embedded_services: EmbeddedServices) -> Iterator[Stack]:
    """Model a is the bundled one, model b a fake; each has a supervisor of its own."""
    url = database.create(embedded_services.database_url, "two_models")
    with running_stack(url, embedded_services.redis_url, ASR_DEFAULT_MODEL="a") as stack:
        stack.start("broker")
        stack.start("asr_worker", ASR_MODEL="", ASR_MODELS="a=demo")
        stack.start("asr_worker2", **B)
        stack.start("persistence")
        stack.start("gateway")
        stack.wait_ready(workers=2)
        yield stack


@contextlib.asynccontextmanager
async def speaking(two: Stack, model: str | None) -> AsyncIterator[Session]:
    async with connect(two.url(), model=model) as session:
        for chunk in chunks_of(AUDIO, "raw", "", 16_000, 1, 500):
            await session.send(chunk)
        yield session


async def finished(session: Session) -> FinalResult:
    await session.finish()
    return await session.final()


async def text_of(two: Stack, model: str | None) -> str:
    async with asyncio.timeout(WAIT_S), speaking(two, model) as session:
        return (await finished(session)).text


async def test_a_session_gets_the_model_that_it_names(two: Stack) -> None:
    a, b, default = await asyncio.gather(*(text_of(two, model) for model in ("a", "b", None)))
    assert a == default == AUDIO.text
    assert HASH.fullmatch(b)
    served = {model["name"]: model for model in two.get("/api/v1/health").body["served"]}
    assert {name: (m["model"], m["workers"]) for name, m in served.items()} == {
        "a": ("demo", 1),
        "b": ("fake:50ms", 1),
    }


async def test_an_unknown_model_is_answered_with_the_list(two: Stack) -> None:
    with pytest.raises(SessionError, match=r"unknown_model.*served models: a, b"):
        await text_of(two, "c")
    answer = two.get("/v1/models/c")
    assert (answer.status, answer.body["error"]["code"]) == (404, "model_not_found")
    assert two.get("/v1/models/b").body["model"] == "fake:50ms"


async def test_only_the_sessions_of_a_model_without_workers_wait(two: Stack) -> None:
    async with speaking(two, "b") as waiting:
        two.processes["asr_worker2"].kill()
        await asyncio.to_thread(
            wait_until,
            lambda: two.get("/api/v1/health").body["reason"] == "no worker serves b",
            "the loss is seen",
        )
        for chunk in chunks_of(AUDIO, "raw", "", 16_000, 1, 500):
            await waiting.send(chunk)
        finishing = asyncio.create_task(finished(waiting))
        assert await text_of(two, "a") == AUDIO.text
        with pytest.raises(ServerBusyError) as refused:
            await text_of(two, "b")
        assert str(refused.value) == "0 workers of model b are ready, 1 are needed"
        assert not finishing.done()
        await asyncio.to_thread(two.start, "asr_worker2", **B)
        async with asyncio.timeout(WAIT_S):
            final = await finishing
    assert HASH.fullmatch(final.text) and final.stored
    stored = two.get(f"/api/v1/session/{waiting.session_id}").body
    assert (stored["model"], stored["text"]) == ("b", final.text)
