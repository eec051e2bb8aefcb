"""Writes the state of the queue to the Redis hash ``asr:queue`` once a second, for monitoring.

A thread of its own with short timeouts writes the hash, so that a stopped or slow Redis never
delays the broker's loop. Only the newest state matters, so there is no queue.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from broker.metrics import REDIS_FAILURES
from wire.messages import Load

QUEUE_KEY = "asr:queue"
WRITE_INTERVAL_S = 1.0
CALL_TIMEOUT_S = 0.25


class QueueCounters:
    """Call ``update`` at any rate. ``close`` returns within two call timeouts."""

    def __init__(self, url: str) -> None:
        self._redis = redis.from_url(
            url,
            socket_timeout=CALL_TIMEOUT_S,
            socket_connect_timeout=CALL_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._load: Load | None = None
        self._ready: bool | None = None
        self._stopped = threading.Event()
        # A daemon thread, so that a blocked Redis client cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="queue-counters", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def update(self, load: Load) -> None:
        """Replace the state to write. Never waits."""
        self._load = load

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(2 * CALL_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopped.wait(WRITE_INTERVAL_S):
            if self._load is not None:
                self._write(self._load)
        self._redis.close()

    def _write(self, load: Load) -> None:
        failure = None
        try:
            self._redis.hset(QUEUE_KEY, mapping=fields_of(load, time.time()))
        except RedisError as error:
            REDIS_FAILURES.inc()
            failure = type(error).__name__
        ready = failure is None
        if ready != self._ready:
            log = structlog.get_logger()
            if ready:
                log.info("redis_ready")
            else:
                log.warning("redis_unavailable", error=failure)
        self._ready = ready


def fields_of(load: Load, wall_s: float) -> dict[Any, Any]:
    """The fields of the hash. ``updated_at`` is wall-clock time in milliseconds since 1970."""
    return {
        "queued": load.queued,
        "processing": load.in_flight,
        "failed": load.failed_total,
        "workers": load.workers,
        "workers_busy": load.workers_busy,
        "est_wait_ms": load.est_wait_ms,
        "queued_audio_ms": load.queued_audio_ms,
        "throughput_rtfx": f"{load.throughput_rtfx:.1f}",
        "updated_at": round(wall_s * 1000),
    }
