"""The registry against a real Redis-protocol server, and against none."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from gateway import registry as r
from gateway.registry import Registry
from tests.conftest import EmbeddedServices

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
async def client(embedded_services: EmbeddedServices) -> AsyncIterator[redis.asyncio.Redis]:
    connection = redis.asyncio.from_url(embedded_services.redis_url, decode_responses=True)
    await connection.delete(r.GATEWAYS_KEY)
    yield connection
    await connection.aclose()


@pytest.fixture
async def pair(
    client: redis.asyncio.Redis, embedded_services: EmbeddedServices
) -> AsyncIterator[tuple[Registry, Registry]]:
    registries = (
        Registry(embedded_services.redis_url, "gateway-a"),
        Registry(embedded_services.redis_url, "gateway-b"),
    )
    yield registries
    for registry in registries:
        await registry.close()


async def _eventually(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_connections_are_counted_over_all_gateways(
    pair: tuple[Registry, Registry],
) -> None:
    one, two = pair
    assert await one.count_connections(3) == 3
    assert await two.count_connections(4) == 7
    assert await one.count_connections(2) == 6
    assert one.ready and two.ready


async def test_a_gateway_that_leaves_is_not_counted(
    client: redis.asyncio.Redis, embedded_services: EmbeddedServices
) -> None:
    one = Registry(embedded_services.redis_url, "gateway-a")
    two = Registry(embedded_services.redis_url, "gateway-b")
    await one.count_connections(5)
    await one.close()
    assert await two.count_connections(1) == 1
    await two.close()


async def test_a_gateway_that_no_longer_beats_is_not_counted(
    client: redis.asyncio.Redis,
    pair: tuple[Registry, Registry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, _ = pair
    await client.hset(r.GATEWAYS_KEY, "gateway-dead", "100:7")
    assert await one.count_connections(1) == 101
    monkeypatch.setattr(r, "GATEWAY_STALE_S", 0.0)
    assert await one.count_connections(1) == 1
    monkeypatch.setattr(r, "GATEWAY_PRUNE_S", 0.0)
    assert await one.count_connections(1) == 1
    assert not await client.hexists(r.GATEWAYS_KEY, "gateway-dead")


async def test_session_hashes_are_written_read_and_forgotten(
    client: redis.asyncio.Redis, embedded_services: EmbeddedServices
) -> None:
    registry = Registry(embedded_services.redis_url, "gateway-a")
    registry.open(lambda: 0)
    session_id = uuid.uuid4().hex
    key = r.SESSION_KEY.format(session_id)
    registry.update_session(session_id, status="active", chunk_count=3)
    await _eventually(lambda: client.exists(key))
    assert await client.hgetall(key) == {"status": "active", "chunk_count": "3"}
    assert 0 < await client.ttl(key) <= r.SESSION_TTL_S
    assert await registry.session_exists(session_id) is True
    registry.forget_session(session_id)

    async def gone() -> bool:
        return await registry.session_exists(session_id) is False

    await _eventually(gone)
    await registry.close()


async def test_without_redis_everything_answers_at_once_from_what_is_known() -> None:
    registry = Registry(NOWHERE, "gateway-a")
    registry.open(lambda: 2)
    assert await registry.count_connections(2) == 2
    assert await registry.session_exists("x") is None
    registry.update_session("x", status="active")
    assert not registry.ready
    await registry.close()


async def test_many_that_ask_at_once_share_few_connections(
    client: redis.asyncio.Redis, embedded_services: EmbeddedServices
) -> None:
    before = int((await client.info("clients"))["connected_clients"])
    registry = Registry(embedded_services.redis_url, "gateway-a")
    counts = await asyncio.gather(*(registry.count_connections(7) for _ in range(200)))
    assert counts == [7] * 200 and registry.ready
    after = int((await client.info("clients"))["connected_clients"])
    assert 0 < after - before <= r.CONNECTIONS_MAX
    await registry.close()


async def test_only_sessions_that_have_not_ended_run(pair: tuple[Registry, Registry]) -> None:
    one, two = pair
    one.open(lambda: 0)
    session_id = str(uuid.uuid4())
    assert not await two.session_runs(session_id)
    for status, runs in [("active", True), ("interrupted", True), ("finished", False)]:
        one.update_session(session_id, status=status)

        async def told(runs: bool = runs) -> bool:
            return await two.session_runs(session_id) is runs

        await _eventually(told)
    one.forget_session(session_id)


async def test_without_redis_no_session_is_known_to_run() -> None:
    registry = Registry(NOWHERE, "gateway-a")
    assert not await registry.session_runs("s")
    await registry.close()


async def test_it_closes_at_any_moment_of_a_call(embedded_services: EmbeddedServices) -> None:
    for moment in range(60):
        registry = Registry(embedded_services.redis_url, f"gateway-{moment}")
        registry.open(lambda: 0)
        for _ in range(3):
            registry.update_session("s", status="active")
        for _ in range(moment):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await registry.close()
