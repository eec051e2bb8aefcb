"""The hash in Redis; with a real server in ``test_service``."""

from __future__ import annotations

import socket
import time

import pytest
import redis

from broker.queue_counters import (
    BROKER_KEY,
    BROKERS_KEY,
    QUEUE_KEY,
    QueueCounters,
    fields_of,
    sum_of,
)
from runtime import redis_clients
from tests.broker.driving import Driver, job
from tests.conftest import EmbeddedServices

CLOSED_S_MAX = 30.0
"""On a busy machine; on an idle one it is two call timeouts. The silent server answers never."""


def test_fields_are_those_of_the_load() -> None:
    driver = Driver()
    driver.hello()
    driver.ready(credits=1)
    for seq in range(3):
        driver.front(job(seq))
    fields = fields_of(driver.broker.load(), wall_s=1_700_000_000.1234)
    assert fields == {
        "queued": 2,
        "processing": 1,
        "failed": 0,
        "workers": 1,
        "workers_busy": 1,
        "est_wait_ms": 150,
        "queued_audio_ms": 2_000,
        "throughput_rtfx": "20.0",
        "updated_at": 1_700_000_000_123,
    }


def test_close_returns_while_redis_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        counters = QueueCounters(f"redis://127.0.0.1:{silent.getsockname()[1]}", "epoch")
        counters.start()
        counters.update(Driver().broker.load())
        began_s = time.monotonic()
        counters.close()
        assert time.monotonic() - began_s < CLOSED_S_MAX


def test_the_sum_over_brokers_that_share_their_workers() -> None:
    driver = Driver()
    driver.hello()
    driver.ready(credits=1)
    for seq in range(3):
        driver.front(job(seq))
    own = fields_of(driver.broker.load(), wall_s=2.0)
    other = {name: str(value) for name, value in own.items()} | {"updated_at": "1", "workers": "3"}
    assert sum_of([own]) == own
    assert sum_of([own, other]) == own | {
        "queued": 4,
        "processing": 2,
        "workers": 3,
        "workers_busy": 2,
        "est_wait_ms": 300,
        "queued_audio_ms": 4_000,
    }


def test_each_broker_writes_the_sum_of_the_living(
    embedded_services: EmbeddedServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_clients, "CALL_TIMEOUT_S", 30.0)
    driver = Driver()
    driver.ready(credits=1)
    driver.hello()
    driver.front(job(0))
    url = embedded_services.redis_url
    with redis.from_url(url, decode_responses=True) as client:
        client.sadd(BROKERS_KEY, "long-gone")
        client.hset(BROKER_KEY.format("other"), mapping={"processing": 4, "updated_at": 1})
        client.sadd(BROKERS_KEY, "other")
        counters = QueueCounters(url, "own")
        counters.update(driver.broker.load())
        assert counters.call()
        assert client.hget(BROKER_KEY.format("own"), "processing") == "1"
        assert int(client.hget(QUEUE_KEY, "processing") or 0) >= 1 + 4
        assert not client.sismember(BROKERS_KEY, "long-gone")
        assert client.ttl(BROKER_KEY.format("own")) > 0
        for key in ("own", "other"):
            client.delete(BROKER_KEY.format(key))
