"""What the hub must not lose count of; the rest is tested with real processes."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.hub import Hub
from gateway.settings import GatewaySettings
from tests.gateway.session_driver import result_of
from tests.gateway.test_admission import LOAD
from tests.gateway.test_segments import job
from wire.messages import Failure


async def test_a_client_that_leaves_during_admission_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    hub = Hub(GatewaySettings())
    asked = asyncio.Event()

    async def never(_own: int) -> int:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("not reached")

    monkeypatch.setattr(hub.registry, "count_connections", never)
    hub.admission.note_load(LOAD, time.monotonic())
    admitting = asyncio.create_task(hub.door.enter())
    await asked.wait()
    assert hub.door.connections == 1
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    assert hub.door.connections == 0


@pytest.mark.parametrize(("code", "failures"), [("overloaded", 0), ("chunk_failed", 1)])
async def test_a_job_that_comes_again_has_not_failed(code: str, failures: int) -> None:
    hub = Hub(GatewaySettings())
    hub._on_message(result_of(job(0), None, Failure(code=code, message="")))
    assert sum(slot.failures for slot in hub.activity.slots(time.monotonic())) == failures
