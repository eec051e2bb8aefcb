"""Session metadata and connection counts of all gateways in Redis.

Redis is optional. Every call has a short timeout. A failed call is counted, and the caller gets the
last known value. Only the admission of a session waits for Redis.

``asr:gateways`` is a hash of gateway id → ``count:beat``. Each gateway increments its beat every
second. A gateway is not counted once its beat has not changed for ``GATEWAY_STALE_S`` on the
reader's monotonic clock. Wall clocks of different hosts are not compared.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.telemetry.metrics import REDIS_FAILURES, REDIS_UP

SESSION_KEY = "asr:session:{}"
GATEWAYS_KEY = "asr:gateways"
SESSION_TTL_S = 86_400
GATEWAYS_TTL_S = 60
GATEWAY_STALE_S = 5.0
GATEWAY_PRUNE_S = 60.0
CALL_TIMEOUT_S = 0.25
PAUSE_AFTER_FAILURE_S = 1.0
"""After a failure no call is made for this long, so that admission stays fast."""
WRITES_QUEUED_MAX = 5_000
"""Session updates waiting to be written. Further ones are dropped and counted."""
CONNECTIONS_MAX = 4
"""Connections to Redis; further calls wait for a free one. Without a limit, a hundred sessions
admitted at once would open a hundred connections and keep them."""
RUNNING = frozenset({"active", "finishing", "confirming", "interrupted"})
"""Statuses of sessions that a client may resume."""

T = TypeVar("T")


class RedisMetadata:
    """``ready``: whether the last call succeeded. Call ``open`` and ``close`` on one event loop."""

    def __init__(self, url: str, gateway_id: str) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_MAX,
            timeout=CALL_TIMEOUT_S * 2,
            socket_timeout=CALL_TIMEOUT_S,
            socket_connect_timeout=CALL_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._redis = redis.asyncio.Redis.from_pool(pool)
        self._gateway_id = gateway_id
        self._beat = 0
        self._seen: dict[str, tuple[str, float]] = {}
        self._others = 0
        self._paused_until_s = 0.0
        self._writes: asyncio.Queue[tuple[str, dict[str, str | int]]] = asyncio.Queue(
            WRITES_QUEUED_MAX
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self.ready = False
        self._log = structlog.get_logger()

    def open(self, connections: Callable[[], int]) -> None:
        """Start to publish ``connections()`` every second and to write session updates."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._beat_on(connections)),
            loop.create_task(self._write()),
        ]

    async def close(self) -> None:
        # redis-py uses wait_for, which before Python 3.12 loses a cancellation that coincides with
        # the reply (CPython issue 86296). Our loops therefore check a flag.
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._try("leave", lambda: self._redis.hdel(GATEWAYS_KEY, self._gateway_id))
        await self._redis.aclose()

    async def count_connections(self, own: int) -> int:
        """Connections of all gateways, ``own`` included; without Redis, the last known sum.

        ``own`` is published first: of two gateways that admit at once, at least one sees both.
        """
        await self._exchange(own)
        return own + self._others

    def known_connections(self, own: int) -> int:
        """The same without a call, as of the last exchange, at most a second ago."""
        return own + self._others

    async def session_exists(self, session_id: str) -> bool | None:
        """Whether the session is known; None without Redis."""
        key = SESSION_KEY.format(session_id)
        found: int | None = await self._try("exists", lambda: self._redis.exists(key))
        return None if found is None else bool(found)

    async def session_runs(self, session_id: str) -> bool:
        """Whether the session is known and can be resumed; False without Redis."""
        key = SESSION_KEY.format(session_id)
        return await self._try("status", lambda: self._redis.hget(key, "status")) in RUNNING

    def update_session(self, session_id: str, **fields: str | int) -> None:
        """Queue a write of ``fields`` to the session's hash."""
        try:
            self._writes.put_nowait((session_id, fields))
        except asyncio.QueueFull:
            REDIS_FAILURES.labels("update_dropped").inc()

    def forget_session(self, session_id: str) -> None:
        """Queue the removal of the session's hash."""
        self.update_session(session_id)

    async def _write(self) -> None:
        while not self._closing:
            session_id, fields = await self._writes.get()
            key = SESSION_KEY.format(session_id)
            if fields:
                await self._try("update", partial(self._put, key, fields))
            else:
                await self._try("forget", partial(self._redis.delete, key))

    async def _put(self, key: str, fields: dict[str, str | int]) -> Any:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(key, mapping={name: str(value) for name, value in fields.items()})
            pipe.expire(key, SESSION_TTL_S)
            return await pipe.execute()

    async def _beat_on(self, connections: Callable[[], int]) -> None:
        while not self._closing:
            self._beat += 1
            await self._exchange(connections())
            if not self._closing:
                await asyncio.sleep(1.0)

    async def _exchange(self, own: int) -> None:
        counts = await self._try("gateways", lambda: self._publish_and_read(own))
        if counts is None:
            return
        now_s = time.monotonic()
        others, dead = 0, []
        for gateway_id, value in counts.items():
            if gateway_id == self._gateway_id:
                continue
            count, _, beat = value.partition(":")
            known = self._seen.get(gateway_id)
            if known is None or known[0] != beat:
                self._seen[gateway_id] = known = (beat, now_s)
            age_s = now_s - known[1]
            if age_s < GATEWAY_STALE_S:
                others += int(count) if count.isdigit() else 0
            elif age_s > GATEWAY_PRUNE_S:
                dead.append(gateway_id)
        self._others = others
        if dead:
            await self._try("prune", lambda: self._redis.hdel(GATEWAYS_KEY, *dead))

    async def _publish_and_read(self, own: int) -> dict[str, str]:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(GATEWAYS_KEY, self._gateway_id, f"{own}:{self._beat}")
            pipe.expire(GATEWAYS_KEY, GATEWAYS_TTL_S)
            pipe.hgetall(GATEWAYS_KEY)
            counts: dict[str, str] = (await pipe.execute())[-1]
            return counts

    async def _try(self, call: str, do: Callable[[], Awaitable[T]]) -> T | None:
        """``do()``, or None on failure, timeout, or during the pause after a failure."""
        if time.monotonic() < self._paused_until_s:
            REDIS_FAILURES.labels(call).inc()
            return None
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S * 2):
                answer = await do()
        except (RedisError, OSError, TimeoutError) as error:
            REDIS_FAILURES.labels(call).inc()
            self._paused_until_s = time.monotonic() + PAUSE_AFTER_FAILURE_S
            self._note_ready(False, error=type(error).__name__)
            return None
        self._note_ready(True)
        return answer

    def _note_ready(self, ready: bool, **details: str) -> None:
        if ready != self.ready:
            self.ready = ready
            REDIS_UP.set(ready)
            self._log.info("redis_ready" if ready else "redis_unavailable", **details)
