"""The hash in Redis; with a real server in ``test_service``."""

from __future__ import annotations

import socket
import time

from broker.queue_counters import CALL_TIMEOUT_S, QueueCounters, fields_of
from tests.broker.driving import Driver, job


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
        counters = QueueCounters(f"redis://127.0.0.1:{silent.getsockname()[1]}")
        counters.start()
        counters.update(Driver().broker.load())
        began_s = time.monotonic()
        counters.close()
        assert time.monotonic() - began_s < 2 * CALL_TIMEOUT_S + 1.0
