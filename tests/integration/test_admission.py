"""Admission: limits before the upgrade, and the form of a refusal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterator

import pytest
import websockets

from asr_client import RefusedError, connect
from tests.integration.speech import chunks_of, spoken
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
        asked = await asyncio.to_thread(gateway_of_five.get, "/api/v1/admission", "gateway5")
        assert (asked.status, asked.body["code"]) == (503, "max_connections")
        assert asked.body["message"] == str(caught.value)
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


async def test_connections_without_a_session_are_limited_by_number(stack: Stack) -> None:
    limits = {"IDLE_CONNECTIONS_MAX": "3", "IDLE_CONNECTIONS_PER_ADDRESS_MAX": "2"}
    with stack.start("gateway7", **limits) as process:
        await asyncio.to_thread(stack.wait_ready, "gateway7")
        url = stack.url("gateway7")

        def open_idle() -> websockets.connect:
            return websockets.connect(url, proxy=None)

        async with open_idle() as first, open_idle():
            with pytest.raises(websockets.InvalidStatus) as caught:
                await open_idle()
            assert caught.value.response.status_code == 503
            body = json.loads(caught.value.response.body or b"")
            assert body["code"] == "idle_connections" and "this address" in body["message"]
            asked = await asyncio.to_thread(stack.get, "/api/v1/admission", "gateway7")
            assert (asked.status, asked.body) == (503, body)
            # With a session it is idle no more.
            await first.send(json.dumps({"action": "start", "session_id": "idle"}))
            assert json.loads(await first.recv())["status"] == "session_started"
            async with open_idle():
                pass
            await first.send(json.dumps({"action": "finish", "session_id": "idle"}))
            assert json.loads(await first.recv())["type"] == "final_result"
            # And idle again, on an open connection.
            with pytest.raises(websockets.InvalidStatus):
                await open_idle()
            await first.send(json.dumps({"action": "start", "session_id": "idle2"}))
            assert json.loads(await first.recv())["status"] == "session_started"
    assert process.wait() == 0
    del stack.processes["gateway7"]


@pytest.mark.parametrize(
    ("limit", "value"), [("ADMIT_BUSY_MAX", "0.4"), ("ADMIT_UTILISATION_MAX", "0.2")]
)
async def test_a_client_faster_than_real_time_causes_no_refusals(
    stack: Stack, limit: str, value: str
) -> None:
    """It makes gateway and workers as busy as one can, but gives way. Other programs of a busy
    machine make a gateway wait, which counts as busyness, so refusals may come at first. Those
    caused by this client would not end before it does."""
    with stack.start("gateway9", **{limit: value}) as process:
        await asyncio.to_thread(stack.wait_ready, "gateway9")
        chunks = chunks_of(spoken(7_300, digits=(20, 20)), "raw", "", 16_000, 1, 1_000)

        async def send_without_end() -> None:
            while True:
                with contextlib.suppress(RefusedError):
                    async with connect(stack.url("gateway9")) as session:
                        for chunk in itertools.cycle(chunks):
                            await session.send(chunk)
                await asyncio.sleep(0.1)

        def admits_for_6_s() -> bool:  # Longer than BUSY_MEMORY_S.
            for _ in range(60):
                if stack.get("/api/v1/admission", "gateway9").body != {"admitted": True}:
                    return False
                time.sleep(0.1)
            return True

        sending = asyncio.create_task(send_without_end())
        await asyncio.to_thread(wait_until, admits_for_6_s, "a gateway that admits", 60)
        assert not sending.done()
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
    assert process.wait() == 0
    del stack.processes["gateway9"]


def test_the_log_shows_the_limit_and_its_source(gateway_of_five: Stack) -> None:
    settings = gateway_of_five.processes["gateway5"].event("settings")
    assert settings["max_connections"] == "5 (environment)"


async def is_refused(url: str) -> bool:
    try:
        async with connect(url):
            return False
    except RefusedError as refusal:
        return "connections" in str(refusal)


async def test_the_limit_counts_over_all_gateways(
    gateway_of_five: Stack, gateway_beside: str
) -> None:
    async with contextlib.AsyncExitStack() as sessions:
        for _ in range(3):
            await sessions.enter_async_context(connect(gateway_beside))
        for _ in range(2):
            await sessions.enter_async_context(connect(gateway_of_five.url("gateway5")))
        # The other gateway publishes its count once a second.
        async with asyncio.timeout(60):
            while not await is_refused(gateway_of_five.url("gateway5")):
                await asyncio.sleep(0.1)


async def test_a_page_of_another_site_is_refused(stack: Stack) -> None:
    with pytest.raises(RefusedError) as caught:
        async with connect(stack.url(), headers={"Origin": "https://elsewhere.example"}):
            pass
    assert caught.value.status == 403
    async with connect(stack.url(), headers={"Origin": stack.http_url()}):
        pass
