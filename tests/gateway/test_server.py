"""Counters of the server. Integration tests cover the rest."""

from __future__ import annotations

import time

import pytest
from prometheus_client import REGISTRY

from gateway.server import Server
from gateway.settings import GatewaySettings
from tests.gateway.session.test_session_jobs import job
from tests.gateway.session_driver import result_of
from tests.gateway.storage.test_outbox import key, record
from wire.messages import Failure, Stored


@pytest.mark.parametrize(("code", "failures"), [("overloaded", 0), ("chunk_failed", 1)])
async def test_a_job_that_is_sent_again_has_not_failed(code: str, failures: int) -> None:
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
