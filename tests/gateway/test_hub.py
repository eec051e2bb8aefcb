"""What the hub must not lose count of; the rest is tested with real processes."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.hub import Hub
from gateway.settings import GatewaySettings
from tests.gateway.test_admission import LOAD


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
    admitting = asyncio.create_task(hub.admit())
    await asked.wait()
    assert hub.connections == 1
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    assert hub.connections == 0
