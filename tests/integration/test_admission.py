"""Admission: limits before the upgrade, and the form of a refusal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterator

import pytest

from asr_client import RefusedError, connect
from tests.integration.speech import chunks_of, spoken
from tools.lab.harness.http import Answer
from tools.lab.harness.stack import Stack, wait_until


@pytest.fixture
def gateway_of_five(stack: Stack, redis_database: str) -> Iterator[Stack]:
    """A further gateway of the same pipeline, with room for five connections in all, where those
    of other tests are not counted."""
    with stack.start("gateway5", MAX_CONNECTIONS="5", REDIS_URL=redis_database) as process:
        stack.wait_ready("gateway5")
        yield stack
    assert process.wait() == 0
    del stack.processes["gateway5"]


@pytest.fixture
def gateway_beside(gateway_of_five: Stack, redis_database: str) -> Iterator[str]:
    """The WebSocket address of another gateway that counts with ``gateway_of_five``."""
    with gateway_of_five.start("gateway6", REDIS_URL=redis_database) as process:
        gateway_of_five.wait_ready("gateway6")
        yield gateway_of_five.url("gateway6")
    assert process.wait() == 0
    del gateway_of_five.processes["gateway6"]


async def test_the_sixth_of_five_is_refused_with_503(gateway_of_five: Stack) -> None:
    url = gateway_of_five.url("gateway5")
    async with contextlib.AsyncExitStack() as sessions:
        for _ in range(5):
            await sessions.enter_async_context(connect(url))
        with pytest.raises(RefusedError) as caught:
            async with connect(url):
                pass
        assert caught.value.status == 503
        assert caught.value.retry_after_s is not None and caught.value.retry_after_s > 0
        assert json.loads(str(caught.value))["code"] == "max_connections"
        asked = await asyncio.to_thread(gateway_of_five.get, "/api/v1/admission", "gateway5")
        assert (asked.status, asked.body) == (503, json.loads(str(caught.value)))
        assert int(asked.headers["retry-after"]) == caught.value.retry_after_s
        answer = await asyncio.to_thread(gateway_of_five.get, "/api/v1/health", "gateway5")
        assert answer.body["limits"]["max_connections"] == {"value": 5, "source": "environment"}
        assert answer.body["connections"] == 5
    await asyncio.to_thread(
        wait_until,
        lambda: gateway_of_five.get("/api/v1/health", "gateway5").body["connections"] == 0,
        "the five are gone",
    )
    async with connect(url):
        pass


@pytest.mark.parametrize("limit", ["ADMIT_BUSY_MAX", "ADMIT_UTILISATION_MAX"])
async def test_a_client_faster_than_real_time_causes_no_refusals(stack: Stack, limit: str) -> None:
    """It makes gateway and workers as busy as one can, but gives way."""
    limits = {"ADMIT_DELAY_MS_MAX": "0", "ADMIT_BUSY_MAX": "0", "ADMIT_UTILISATION_MAX": "0"}
    with stack.start("gateway9", **{**limits, limit: "0.2"}) as process:
        await asyncio.to_thread(stack.wait_ready, "gateway9")
        chunks = chunks_of(spoken(7_300, digits=(20, 20)), "raw", "", 16_000, 1, 1_000)
        answers: list[Answer] = []

        async def send() -> None:
            async with connect(stack.url("gateway9")) as session:
                for chunk in itertools.cycle(chunks):
                    await session.send(chunk)
                    if len(answers) == 30:
                        return

        sending = asyncio.create_task(send())
        while len(answers) < 30:
            await asyncio.sleep(0.1)
            answers.append(await asyncio.to_thread(stack.get, "/api/v1/admission", "gateway9"))
        await sending
    assert process.wait() == 0
    del stack.processes["gateway9"]
    assert [answer.body for answer in answers] == [{"admitted": True}] * 30


def test_the_log_shows_the_limit_and_its_source(gateway_of_five: Stack) -> None:
    settings = gateway_of_five.processes["gateway5"].event("settings")
    assert settings["max_connections"] == "5 (environment)"


async def test_the_limit_counts_over_all_gateways(
    gateway_of_five: Stack, gateway_beside: str
) -> None:
    async with contextlib.AsyncExitStack() as sessions:
        for _ in range(3):
            await sessions.enter_async_context(connect(gateway_beside))
        for _ in range(2):
            await sessions.enter_async_context(connect(gateway_of_five.url("gateway5")))
        await asyncio.sleep(1.5)  # The other gateway tells its count once a second.
        with pytest.raises(RefusedError):
            async with connect(gateway_of_five.url("gateway5")):
                pass


@pytest.mark.parametrize("level", ["debug", "DEBUG", "Debug"])
def test_the_log_level_is_taken_in_any_case(stack: Stack, level: str) -> None:
    with stack.start("gateway9", LOG_LEVEL=level) as process:
        stack.wait_ready("gateway9")
        assert process.event("settings")["log_level"] == "debug (environment)"
    assert process.wait() == 0
    del stack.processes["gateway9"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_CONNECTIONS", "many"), ("LOG_LEVEL", "loud"), ("HOST", "0.0.0.0"), ("PORT", "99999")],
)
def test_a_wrong_setting_is_one_clear_line(stack: Stack, name: str, value: str) -> None:
    with stack.start("gateway9", **{name: value}) as process:
        assert process.wait() == 78
    del stack.processes["gateway9"]
    (line,) = process.lines
    assert line.startswith("error: ") and name in line


def test_a_taken_port_is_one_clear_line(stack: Stack) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with stack.start("gateway9", PORT=port) as process:
            assert process.wait() == 69
    del stack.processes["gateway9"]
    assert [line for line in process.lines if line.startswith("error: ") and port in line]


async def test_a_page_of_another_site_is_refused(stack: Stack) -> None:
    with pytest.raises(RefusedError) as caught:
        async with connect(stack.url(), headers={"Origin": "https://elsewhere.example"}):
            pass
    assert caught.value.status == 403
    async with connect(stack.url(), headers={"Origin": stack.http_url()}):
        pass
