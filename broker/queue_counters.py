"""Writes the state of the queue to Redis once a second, for monitoring: that of this broker to a
hash of its own, and the sum over all brokers to ``asr:queue``.

All brokers write the same sum, at most a second old, so no leader is needed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from broker.metrics import REDIS_FAILURES
from runtime import redis_clients
from wire.messages import Load

QUEUE_KEY = "asr:queue"
BROKERS_KEY = "asr:queues"
"""A set of the epochs of brokers."""
BROKER_KEY = "asr:queue:{}"
"""The hash of the broker of this epoch."""
BROKER_TTL_S = 10
"""A broker that has written nothing for this long does not count."""
SHARED = ("workers", "throughput_rtfx")
"""All brokers have the same workers, so that these are not summed: the largest counts."""
WRITE_INTERVAL_S = 1.0


class QueueCounters(redis_clients.PeriodicCalls):
    """Call ``update`` at any rate."""

    def __init__(self, url: str, epoch: str) -> None:
        super().__init__(url, "queue-counters", WRITE_INTERVAL_S)
        self._epoch = epoch
        self._load: Load | None = None

    def update(self, load: Load) -> None:
        """Replace the state to write. Never waits."""
        self._load = load

    def call(self) -> bool:
        if self._load is None:
            return False
        try:
            self._exchange(fields_of(self._load, time.time()))
        except redis_clients.ERRORS:
            REDIS_FAILURES.inc()
            raise
        return True

    def _exchange(self, own: dict[Any, Any]) -> None:
        client, key = self.client(), BROKER_KEY.format(self._epoch)
        # In a cluster each key may be on another server, so there are no transactions.
        with client.pipeline(transaction=False) as pipe:
            pipe.hset(key, mapping=own)
            pipe.expire(key, BROKER_TTL_S)
            pipe.sadd(BROKERS_KEY, self._epoch)
            pipe.execute()
        others = []
        for epoch in client.smembers(BROKERS_KEY) - {self._epoch}:
            if found := client.hgetall(BROKER_KEY.format(epoch)):
                others.append(found)
            else:
                client.srem(BROKERS_KEY, epoch)
        client.hset(QUEUE_KEY, mapping=sum_of([own, *others]))


def sum_of(brokers: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """The fields of ``asr:queue``, from those of each broker, the own one first."""
    own, *others = brokers
    total = dict(own)
    for fields in others:
        for name in own.keys() & fields.keys() - {"updated_at"}:
            values = float(total[name]), float(fields[name])
            joined = max(values) if name in SHARED else sum(values)
            total[name] = f"{joined:.1f}" if name == "throughput_rtfx" else round(joined)
    total["workers_busy"] = min(total["workers_busy"], total["workers"])
    return total


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
