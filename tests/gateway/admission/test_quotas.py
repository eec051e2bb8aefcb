"""Limits of tokens over two gateways with a real Redis-protocol server, and without one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from gateway.admission.quotas import Quotas
from gateway.storage.callers import NOBODY, Caller, TokenLimits
from gateway.storage.redis_metadata import RedisMetadata
from tests.conftest import EmbeddedServices
from tests.gateway.storage.test_redis_metadata import NOWHERE


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may keep the server still for longer than a call may take."""
    monkeypatch.setattr("runtime.redis_clients.CALL_TIMEOUT_S", 60.0)


def caller(**limits: int) -> Caller:
    return Caller(token_name=uuid.uuid4().hex, limits=TokenLimits(**limits))


@pytest.fixture
async def pair(embedded_services: EmbeddedServices) -> AsyncIterator[tuple[Quotas, Quotas]]:
    both = [
        RedisMetadata(embedded_services.redis_url, f"gateway-{uuid.uuid4().hex}") for _ in range(2)
    ]
    for each in both:
        await each.count_connections(0)
    yield Quotas(both[0]), Quotas(both[1])
    for each in both:
        await each.close()


async def test_sessions_of_all_gateways_count(pair: tuple[Quotas, Quotas]) -> None:
    one, two = pair
    anna = caller(sessions=1)
    one.enter(anna)
    assert await one.refuse_session(anna) is None
    two.enter(anna)
    refusal = await two.refuse_session(anna)
    assert refusal is not None and refusal.code == "too_many_sessions"
    two.leave(anna)
    one.leave(anna)
    two.enter(anna)
    await one._exchange(one._uses.changes(0.0))
    assert await two.refuse_session(anna) is None


async def test_audio_of_all_gateways_counts(pair: tuple[Quotas, Quotas]) -> None:
    one, two = pair
    anna = caller(audio_s_per_day=10)
    one.enter(anna)
    assert await one.refuse_session(anna) is None
    one.note_audio(anna, 6.0)
    two.enter(anna)
    two.note_audio(anna, 4.0)
    assert await two.refuse_session(anna) is None, "the first has not published its own yet"
    assert await one.refuse_session(anna) is not None
    refusal = await two.refuse_session(anna)
    assert refusal is not None and refusal.code == "audio_limit_reached"


async def test_requests_of_all_gateways_count(
    pair: tuple[Quotas, Quotas], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.admission.quotas.time.time", lambda: 1_000_000.0)
    anna = caller(requests_per_s=3)
    answers = [await each.refuse_request(anna) for each in (*pair, *pair)]
    assert [answer is None for answer in answers] == [True, True, True, False]


async def test_without_redis_each_gateway_counts_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.admission.quotas.time.time", lambda: 1_000_000.0)
    alone = Quotas(RedisMetadata(NOWHERE, "gateway-a"))
    anna = caller(sessions=1, requests_per_s=1, audio_s_per_day=10)
    assert await alone.refuse_request(anna) is None
    assert await alone.refuse_request(anna) is not None
    alone.enter(anna)
    assert await alone.refuse_session(anna) is None
    alone.enter(anna)
    assert await alone.refuse_session(anna) is not None
    alone.leave(anna)
    alone.note_audio(anna, 10.0)
    assert alone.audio_refusal(anna) is not None


async def test_without_limits_redis_is_not_asked() -> None:
    alone = Quotas(RedisMetadata(NOWHERE, "gateway-a"))
    assert await alone.refuse_request(NOBODY) is None
    assert await alone.refuse_session(NOBODY) is None
    assert not alone._redis_metadata.ready and alone._redis_metadata._paused_until_s == 0.0
