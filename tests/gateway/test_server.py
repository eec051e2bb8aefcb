"""What the server must not lose count of; the rest is tested with real processes."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import REGISTRY

from gateway.server import Server
from gateway.settings import GatewaySettings
from tests.gateway.admission.test_policy import LOAD
from tests.gateway.session.test_segments import job
from tests.gateway.session_driver import result_of
from tests.gateway.storage.test_outbox import key, record
from wire.messages import Failure, Stored


async def test_a_client_that_leaves_during_admission_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    server = Server(GatewaySettings())
    asked = asyncio.Event()

    async def never(_own: int) -> int:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("not reached")

    monkeypatch.setattr(server.redis_metadata, "count_connections", never)
    server.admission.note_load(LOAD, time.monotonic())
    admitting = asyncio.create_task(server.gate.enter())
    await asked.wait()
    assert server.gate.connections == 1
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    assert server.gate.connections == 0


@pytest.mark.parametrize(("code", "failures"), [("overloaded", 0), ("chunk_failed", 1)])
async def test_a_job_that_comes_again_has_not_failed(code: str, failures: int) -> None:
    server = Server(GatewaySettings())
    server._on_message(result_of(job(0), None, Failure(code=code, message="")))
    assert sum(slot.failures for slot in server.activity.slots(time.monotonic())) == failures


async def test_the_time_until_a_record_is_stored_is_measured() -> None:
    server = Server(GatewaySettings())
    server.outbox.put_record(record(0), time.monotonic() - 3.0)

    def measured() -> list[float]:
        name = "asr_gateway_store_seconds"
        return [REGISTRY.get_sample_value(f"{name}_{of}") or 0.0 for of in ("count", "sum")]

    count, seconds = measured()
    stored = Stored(gateway_id=server.gateway_id, keys=(key("record", 0), key("record", 9)))
    server._on_message(stored)
    assert measured()[0] == count + 1
    assert measured()[1] >= seconds + 3.0
