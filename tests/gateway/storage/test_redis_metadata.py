"""Session metadata against a real Redis-protocol server, and without one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
import redis.asyncio
import structlog

from gateway.storage import redis_metadata as r
from gateway.storage.redis_metadata import RedisMetadata
from tests.conftest import EmbeddedServices

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may keep the server still for longer than a call may take."""
    monkeypatch.setattr("runtime.redis_clients.CALL_TIMEOUT_S", 60.0)


@pytest.fixture
async def client(embedded_services: EmbeddedServices) -> AsyncIterator[redis.asyncio.Redis]:
    connection = redis.asyncio.from_url(embedded_services.redis_url, decode_responses=True)
    await connection.delete(r.GATEWAYS_KEY)
    yield connection
    await connection.aclose()


@pytest.fixture
async def pair(
    client: redis.asyncio.Redis, embedded_services: EmbeddedServices
) -> AsyncIterator[tuple[RedisMetadata, RedisMetadata]]:
    both = (
        RedisMetadata(embedded_services.redis_url, "gateway-a"),
        RedisMetadata(embedded_services.redis_url, "gateway-b"),
    )
    yield both
    for redis_metadata in both:
        await redis_metadata.close()


async def _eventually(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_connections_are_counted_over_all_gateways(
    pair: tuple[RedisMetadata, RedisMetadata],
) -> None:
    one, two = pair
    assert (one.gateways, one.known_s) == (1, float("inf"))
    assert await one.count_connections(3) == 3
    assert await two.count_connections(4) == 7
    assert await one.count_connections(2) == 6
    assert one.ready and two.ready
    assert one.gateways == two.gateways == 2
    assert 0 <= one.known_s < 60


async def test_a_closed_gateway_is_not_counted(
    client: redis.asyncio.Redis, embedded_services: EmbeddedServices
) -> None:
    one = RedisMetadata(embedded_services.redis_url, "gateway-a")
    two = RedisMetadata(embedded_services.redis_url, "gateway-b")
    await one.count_connections(5)
    await one.close()
    assert await two.count_connections(1) == 1
    await two.close()


async def test_a_gateway_without_a_beat_is_not_counted_and_later_removed(
    client: redis.asyncio.Redis,
    pair: tuple[RedisMetadata, RedisMetadata],
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


async def test_session_hashes_are_written_read_and_removed(
    client: redis.asyncio.Redis, embedded_services: EmbeddedServices
) -> None:
    redis_metadata = RedisMetadata(embedded_services.redis_url, "gateway-a")
    redis_metadata.open(lambda: 0)
    session_id = uuid.uuid4().hex
    key = r.SESSION_KEY.format(session_id)
    redis_metadata.update_session(session_id, status="active", chunk_count=3)
    await _eventually(lambda: client.exists(key))
    assert await client.hgetall(key) == {"status": "active", "chunk_count": "3"}
    assert 0 < await client.ttl(key) <= r.SESSION_TTL_S
    assert await redis_metadata.session_exists(session_id) is True
    redis_metadata.forget_session(session_id)

    async def gone() -> bool:
        return await redis_metadata.session_exists(session_id) is False

    await _eventually(gone)
    await redis_metadata.close()


async def test_updates_share_calls_and_keep_their_order(
    client: redis.asyncio.Redis,
    embedded_services: EmbeddedServices,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    put = RedisMetadata._put

    async def counted(self: RedisMetadata, updates: Sequence[r.Update]) -> None:
        sizes.append(len(updates))
        await put(self, updates)

    monkeypatch.setattr(RedisMetadata, "_put", counted)
    redis_metadata = RedisMetadata(embedded_services.redis_url, "gateway-a")
    ids = [uuid.uuid4().hex for _ in range(r.WRITES_PER_CALL_MAX)]
    for session_id in ids:
        redis_metadata.update_session(session_id, status="active")
    redis_metadata.update_session(ids[0], chunk_count=1)
    redis_metadata.forget_session(ids[0])
    redis_metadata.update_session(ids[0], mode="auto")
    redis_metadata.open(lambda: 0)
    key = r.SESSION_KEY.format(ids[0])
    await _eventually(lambda: client.hexists(key, "mode"))
    assert await client.hgetall(key) == {"mode": "auto"}
    assert await client.exists(*(r.SESSION_KEY.format(each) for each in ids)) == len(ids)
    assert sizes == [r.WRITES_PER_CALL_MAX, 3]
    await redis_metadata.close()


async def test_without_redis_every_call_returns_the_last_known_value() -> None:
    redis_metadata = RedisMetadata(NOWHERE, "gateway-a")
    with structlog.testing.capture_logs() as logs:
        redis_metadata.open(lambda: 2)
        assert await redis_metadata.count_connections(2) == 2
        assert await redis_metadata.session_exists("x") is None
        redis_metadata.update_session("x", status="active")
        assert not redis_metadata.ready
        await redis_metadata.close()
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("redis_unavailable", "warning")
    assert "127.0.0.1:1" in line["reason"]


async def test_a_server_that_refuses_writes_is_logged_once(
    client: redis.asyncio.Redis, embedded_services: EmbeddedServices
) -> None:
    await client.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], commands=["+exists"])
    url = f"{embedded_services.redis_url}?username=reader&password=any"
    redis_metadata = RedisMetadata(url, "gateway-a")
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            assert await redis_metadata.session_exists("x") is False
            await redis_metadata.count_connections(2)
            redis_metadata._paused_until_s = 0.0
        await redis_metadata.close()
    await client.acl_deluser("reader")
    assert [line["error"] for line in logs] == ["NoPermissionError"]


async def test_concurrent_calls_share_a_limited_number_of_connections(
    client: redis.asyncio.Redis, embedded_services: EmbeddedServices
) -> None:
    before = int((await client.info("clients"))["connected_clients"])
    redis_metadata = RedisMetadata(embedded_services.redis_url, "gateway-a")
    counts = await asyncio.gather(*(redis_metadata.count_connections(7) for _ in range(200)))
    assert counts == [7] * 200 and redis_metadata.ready
    after = int((await client.info("clients"))["connected_clients"])
    assert 0 < after - before <= r.CONNECTIONS_MAX
    await redis_metadata.close()


async def test_what_is_written_now_is_known_elsewhere_at_once(
    pair: tuple[RedisMetadata, RedisMetadata],
) -> None:
    one, two = pair
    session_id = str(uuid.uuid4())
    await one.write_session(session_id, status="queued", tenant="acme")
    assert await two.session_status(session_id, "acme") == "queued"


async def test_only_unfinished_sessions_are_resumable(
    pair: tuple[RedisMetadata, RedisMetadata],
) -> None:
    one, two = pair
    one.open(lambda: 0)
    session_id = str(uuid.uuid4())
    assert not await two.session_runs(session_id, "acme")
    for status, runs in [("active", True), ("interrupted", True), ("finished", False)]:
        one.update_session(session_id, status=status, tenant="acme")

        async def published(runs: bool = runs) -> bool:
            return await two.session_runs(session_id, "acme") is runs

        await _eventually(published)
        assert not await two.session_runs(session_id, "default")
    one.forget_session(session_id)


async def test_without_redis_no_session_is_resumable() -> None:
    redis_metadata = RedisMetadata(NOWHERE, "gateway-a")
    assert not await redis_metadata.session_runs("s", "default")
    await redis_metadata.close()


async def test_close_works_at_any_moment_of_a_call(embedded_services: EmbeddedServices) -> None:
    for moment in range(60):
        redis_metadata = RedisMetadata(embedded_services.redis_url, f"gateway-{moment}")
        redis_metadata.open(lambda: 0)
        for _ in range(3):
            redis_metadata.update_session("s", status="active")
        for _ in range(moment):
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await redis_metadata.close()


async def test_uses_of_tokens_are_those_of_gateways_that_live(
    client: redis.asyncio.Redis, pair: tuple[RedisMetadata, RedisMetadata]
) -> None:
    one, two = pair
    name, day = uuid.uuid4().hex, 20_000
    await one.count_connections(0)
    assert await one.exchange_uses({name: (2, 1.5)}, day) == {name: (0, 0.0)}
    assert await two.exchange_uses({name: (1, 0.25)}, day) == {name: (2, 1.5)}
    await one.exchange_uses({name: (3, 1.5)}, day)
    assert await two.exchange_uses({name: (1, 0.25)}, day) == {name: (3, 1.5)}
    await one.close()
    assert await two.exchange_uses({name: (1, 0.25)}, day) == {name: (0, 1.5)}, "audio stays"
    for key in await client.keys(f"asr:token:{name}:*"):
        assert await client.ttl(key) > 0


async def test_requests_are_counted_by_the_second(
    client: redis.asyncio.Redis, pair: tuple[RedisMetadata, RedisMetadata]
) -> None:
    name = uuid.uuid4().hex
    counts = [await each.count_request(name, second) for second in (1, 2) for each in pair]
    assert counts == [1, 2, 1, 2]
    assert await client.ttl(f"asr:token:{name}:requests:1") > 0
    nowhere = RedisMetadata(NOWHERE, "gateway-c")
    assert await nowhere.count_request(name, 1) is None
    assert await nowhere.exchange_uses({name: (1, 0.0)}, 1) is None
