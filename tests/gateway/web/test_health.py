"""Health and probes, for each part of the system that may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Response

from gateway.admission.policy import Refusal
from gateway.web.schemas import HealthAnswer
from tests.gateway.web.endpoints import endpoint
from wire.messages import Abilities, ServedModel

DEMO = ServedModel(name="demo", model="demo", workers=2, abilities=Abilities(word_times=True))
AWAY = ServedModel(name="zh", model="", workers=0)
NO_WORKER = Refusal(code="no_worker", message="0 workers are ready, 1 are needed", retry_after_s=5)


def server(
    *,
    refusal: Refusal | None = None,
    redis: bool = True,
    db: bool = True,
    models: Sequence[ServedModel] = (DEMO,),
) -> Any:
    async def ping() -> bool:
        return db

    load = SimpleNamespace(workers=0 if refusal else 2, models=("demo",))
    return SimpleNamespace(
        models=SimpleNamespace(all=models),
        admission=SimpleNamespace(readiness=lambda _now_s: refusal, load=lambda _now_s: load),
        reader=SimpleNamespace(ping=ping),
        redis_metadata=SimpleNamespace(ready=redis),
        gate=SimpleNamespace(connections=3),
        settings=SimpleNamespace(max_connections=10, est_wait_ms_max=3_000),
    )


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ({}, "ok", 200),
        ({"redis": False}, "degraded", 200),
        ({"db": False}, "degraded", 200),
        ({"models": (DEMO, AWAY)}, "degraded", 200),
        ({"refusal": NO_WORKER}, "unavailable", 503),
        ({"refusal": NO_WORKER, "db": False}, "unavailable", 503),
    ],
)
async def test_health(parts: dict[str, Any], status: str, code: int) -> None:
    response = Response()
    body = await endpoint(server(**parts), "/api/v1/health")(response)
    answer = HealthAnswer.model_validate(body)
    assert (answer.status, response.status_code) == (status, code)
    assert answer.funasr_ready is (status != "unavailable")
    reasons = {"refusal": NO_WORKER.message, "models": "no worker serves zh"}
    assert answer.reason == next((reasons[part] for part in parts if part in reasons), None)
    assert [model.name for model in answer.served] == [
        model.name for model in parts.get("models", (DEMO,))
    ]
    assert body["served"][0]["abilities"]["word_times"] is True
    assert answer.limits["max_connections"].source == "default"


async def test_a_gateway_without_workers_is_alive_and_not_ready() -> None:
    without = server(refusal=NO_WORKER)
    assert await endpoint(without, "/livez")() == {"status": "alive"}
    assert (await endpoint(without, "/readyz")()).status_code == 503
    assert (await endpoint(server(), "/readyz")()).status_code == 200
