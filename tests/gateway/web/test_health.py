"""Health and probes, for each part of the system that may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Response
from starlette.testclient import TestClient

from gateway.admission.policy import Refusal
from gateway.web import auth_tokens
from gateway.web.app import create_app
from gateway.web.schemas import HealthAnswer
from tests.gateway.web.endpoints import endpoint
from tests.gateway.web.test_auth import allowing
from wire.messages import Abilities, ServedModel

DEMO = ServedModel(name="demo", model="demo", workers=2, abilities=Abilities(word_times=True))
AWAY = ServedModel(name="zh", model="", workers=0)
REQUEST = SimpleNamespace(state=SimpleNamespace())
NO_WORKER = Refusal(code="no_worker", message="0 workers are ready, 1 are needed", retry_after_s=5)


def server(
    *,
    refusal: Refusal | None = None,
    redis: bool = True,
    db: bool = True,
    models: Sequence[ServedModel] = (DEMO,),
    default: str = "",
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
        quotas=SimpleNamespace(refuse_request=allowing),
        brokers=SimpleNamespace(states=list),
        settings=SimpleNamespace(
            max_connections=10, est_wait_ms_max=3_000, asr_default_model=default
        ),
    )


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ({}, "ready", 200),
        ({"redis": False}, "degraded", 200),
        ({"db": False}, "degraded", 200),
        ({"models": (DEMO, AWAY)}, "degraded", 200),
        ({"refusal": NO_WORKER}, "unavailable", 503),
        ({"refusal": NO_WORKER, "db": False}, "unavailable", 503),
    ],
)
async def test_health(parts: dict[str, Any], status: str, code: int) -> None:
    response = Response()
    body = await endpoint(server(**parts), "/api/v1/health")(REQUEST, response)
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


async def test_a_default_model_without_workers_is_named_with_its_setting() -> None:
    body = await endpoint(server(models=(DEMO, AWAY), default="zh"), "/api/v1/health")(
        REQUEST, Response()
    )
    assert (body["status"], body["reason"]) == (
        "degraded",
        "no worker serves zh (ASR_DEFAULT_MODEL)",
    )


@pytest.mark.parametrize(("parts", "code"), [({}, 200), ({"refusal": NO_WORKER}, 503)])
def test_a_probe_without_a_token_gets_the_status_only(
    tmp_path: Path, parts: dict[str, Any], code: int
) -> None:
    token = auth_tokens.new_token()
    auth_tokens.write(
        tmp_path / "tokens", {"anna": auth_tokens.Access(digest=auth_tokens.hash_of(token))}
    )
    app = create_app(server(**parts), {}, auth_tokens.AuthTokens(tmp_path / "tokens"))
    client = TestClient(app)
    answer = client.get("/api/v1/health")
    status = "unavailable" if parts else "ready"
    assert (answer.status_code, answer.json()) == (code, {"status": status})
    answer = client.get("/api/v1/health", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["models"]) == (code, ["demo"])
    answer = client.get("/api/v1/health", headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 401
    assert client.post("/api/v1/health").status_code == 401


async def test_a_gateway_without_workers_is_alive_and_not_ready() -> None:
    without = server(refusal=NO_WORKER)
    assert await endpoint(without, "/livez")() == {"status": "alive"}
    assert (await endpoint(without, "/readyz")()).status_code == 503
    assert (await endpoint(server(), "/readyz")()).status_code == 200
