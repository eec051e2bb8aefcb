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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gateway.telemetry.metrics import REDIS_FAILURES, REDIS_UP
from runtime import redis_clients
from runtime.process_report import PROCESS_KEY, PROCESSES_KEY, TTL_S
from wire.records import DEFAULT_TENANT

SESSION_KEY = "asr:session:{}"
TOKEN_SESSIONS_KEY = "asr:token:{}:sessions"
TOKEN_AUDIO_KEY = "asr:token:{}:audio:{}"
TOKEN_REQUESTS_KEY = "asr:token:{}:requests:{}"
"""By the name of a token, and the day or second since the epoch."""
TOKEN_AUDIO_TTL_S = 2 * 86_400
TOKEN_REQUESTS_TTL_S = 5
GATEWAYS_KEY = "asr:gateways"
SESSION_TTL_S = 86_400
GATEWAYS_TTL_S = 60
EXCHANGE_EVERY_S = 1.0
"""Interval at which gateways exchange their numbers of connections and the uses of tokens."""
GATEWAY_STALE_S = 5.0
GATEWAY_PRUNE_S = 60.0
PAUSE_AFTER_FAILURE_S = 1.0
"""After a failure no call is made for this long, so that admission stays fast."""
WRITES_QUEUED_MAX = 5_000
"""Session updates waiting to be written. Further ones are dropped and counted."""
WRITES_PER_CALL_MAX = 100
"""Session updates in one call, about 5 ms of the event loop."""
WRITE_EVERY_S = 0.1
"""Least time from one such call to the next. Updates in between share it: a call for each of them
took a tenth of the time of a gateway with 300 sessions."""
CONNECTIONS_MAX = 4
"""Calls at once, and so connections to Redis; further calls wait. Without a limit, a hundred
sessions admitted at once would open a hundred connections and keep them."""
RUNNING = frozenset({"active", "finishing", "confirming", "interrupted"})
"""Statuses of sessions that a client may resume."""

Command = tuple[str | float, ...]
"""A command of Redis and its arguments."""
Update = tuple[str, dict[str, str | int]]
"""A session's id, and the fields to write; none: remove the session."""
EXCHANGE = "gateways"
"""The call that publishes this gateway's count and reads those of the others, once a second."""


class RedisMetadata:
    """Call ``open`` and ``close`` on one event loop."""

    def __init__(self, url: str, gateway_id: str) -> None:
        self._redis = redis_clients.asynchronous(url)
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)
        self._gateway_id = gateway_id
        self._beat = 0
        self._seen: dict[str, tuple[str, float]] = {}
        self._others = 0
        self._gateways = 1
        self._exchanged_s = float("-inf")
        self._paused_until_s = 0.0
        self._writes: asyncio.Queue[Update] = asyncio.Queue(WRITES_QUEUED_MAX)
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._availability = redis_clients.Availability()

    @property
    def ready(self) -> bool:
        """Whether the last exchange of counts, and each call since then, succeeded."""
        return self._availability.ready is True

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
        await self._call(
            "leave",
            ("HDEL", GATEWAYS_KEY, self._gateway_id),
            ("DEL", PROCESS_KEY.format(self._gateway_id)),
        )
        await self._redis.aclose()

    async def count_connections(self, own: int) -> int:
        """Connections of all gateways, ``own`` included; without Redis, the last known sum.

        ``own`` is published first: of two gateways that admit at once, at least one sees both.
        """
        await self._exchange(own)
        return own + self._others

    def known_connections(self, own: int) -> int:
        """The same without a call, as of the last exchange."""
        return own + self._others

    @property
    def gateways(self) -> int:
        """Gateways in the last exchange, this one included."""
        return self._gateways

    @property
    def known_s(self) -> float:
        """Age of the last exchange in seconds; infinite if there was none."""
        return time.monotonic() - self._exchanged_s

    async def session_exists(self, session_id: str) -> bool | None:
        """Whether the session is known; None without Redis."""
        found = await self._call("exists", ("EXISTS", SESSION_KEY.format(session_id)))
        return None if found is None else bool(found[0])

    async def session_status(self, session_id: str, tenant: str) -> str | None:
        """The status last noted of the tenant's session; None: it is unknown, or there is no
        Redis."""
        key = SESSION_KEY.format(session_id)
        found = await self._call("status", ("HMGET", key, "status", "tenant"))
        status, owner = found[0] if found else (None, None)
        # A release without tenants writes none.
        return status if (owner or DEFAULT_TENANT) == tenant else None

    async def session_runs(self, session_id: str, tenant: str) -> bool:
        """Whether the tenant's session is known and can be resumed; False without Redis."""
        return await self.session_status(session_id, tenant) in RUNNING

    async def count_request(self, token_name: str, second: int) -> int | None:
        """Count a request of this second, and return the number at all gateways; None without
        Redis."""
        key = TOKEN_REQUESTS_KEY.format(token_name, second)
        found = await self._call("requests", ("INCR", key), ("EXPIRE", key, TOKEN_REQUESTS_TTL_S))
        return None if found is None else int(found[0])

    async def exchange_uses(
        self, own: Mapping[str, tuple[int, float]], day: int
    ) -> dict[str, tuple[int, float]] | None:
        """Publish how many sessions each token has here, and its seconds of audio of ``day``, and
        return the sums of all other gateways; None without Redis.

        Audio counts when its gateway has ended, sessions do not.
        """
        commands: list[Command] = [("HGETALL", GATEWAYS_KEY)]
        for token_name, (sessions, audio_s) in own.items():
            sums = (
                (TOKEN_SESSIONS_KEY.format(token_name), str(sessions), GATEWAYS_TTL_S),
                (TOKEN_AUDIO_KEY.format(token_name, day), f"{audio_s:.3f}", TOKEN_AUDIO_TTL_S),
            )
            for key, value, ttl_s in sums:
                commands.append(("HSET", key, self._gateway_id, value))
                commands += [("EXPIRE", key, ttl_s), ("HGETALL", key)]
        answers = await self._call("uses", *commands)
        if answers is None:
            return None
        gateways, *published = (answer for answer in answers if isinstance(answer, dict))
        self._note_beats(gateways)
        live = self._live(gateways)
        found = {}
        for token_name, here, audio in zip(own, published[::2], published[1::2], strict=True):
            audio.pop(self._gateway_id, None)
            audio_s = sum(float(each) for each in audio.values())
            found[token_name] = sum(_count(here.get(each, "")) for each in live), audio_s
        return found

    async def publish_figures(self, figures: str) -> None:
        """Replace the figures of this gateway, JSON for the dashboard."""
        await self._call(
            "figures",
            ("SET", PROCESS_KEY.format(self._gateway_id), figures, "EX", TTL_S),
            ("SADD", PROCESSES_KEY, self._gateway_id),
        )

    async def all_figures(self) -> list[str] | None:
        """The figures of all processes that write some; None without Redis."""
        if (found := await self._call("figures", ("SMEMBERS", PROCESSES_KEY))) is None:
            return None
        ids = sorted(found[0])
        # In a cluster, a command cannot have keys of several nodes.
        texts = await self._call("figures", *(("GET", PROCESS_KEY.format(one)) for one in ids))
        if texts is None:
            return None
        if gone := [one for one, text in zip(ids, texts, strict=True) if text is None]:
            await self._call("figures", ("SREM", PROCESSES_KEY, *gone))
        return [str(text) for text in texts if text is not None]

    def update_session(self, session_id: str, **fields: str | int) -> None:
        """Queue a write of ``fields`` to the session's hash."""
        try:
            self._writes.put_nowait((session_id, fields))
        except asyncio.QueueFull:
            REDIS_FAILURES.labels("update_dropped").inc()

    async def write_session(self, session_id: str, **fields: str | int) -> None:
        """Write ``fields`` now, so that other gateways know them on return, if Redis answers."""
        await self._put([(session_id, fields)])

    def forget_session(self, session_id: str) -> None:
        """Queue the removal of the session's hash."""
        self.update_session(session_id)

    async def _write(self) -> None:
        while not self._closing:
            updates = [await self._writes.get()]
            while len(updates) < WRITES_PER_CALL_MAX and not self._writes.empty():
                updates.append(self._writes.get_nowait())
            await self._put(updates)
            if not self._closing:
                await asyncio.sleep(WRITE_EVERY_S)

    async def _put(self, updates: Sequence[Update]) -> None:
        commands: list[Command] = []
        for session_id, fields in updates:
            key = SESSION_KEY.format(session_id)
            if fields:
                pairs = (str(each) for pair in fields.items() for each in pair)
                commands += [("HSET", key, *pairs), ("EXPIRE", key, SESSION_TTL_S)]
            else:
                commands.append(("DEL", key))
        await self._call("update", *commands)

    async def _beat_on(self, connections: Callable[[], int]) -> None:
        while not self._closing:
            self._beat += 1
            await self._exchange(connections())
            if not self._closing:
                await asyncio.sleep(EXCHANGE_EVERY_S)

    async def _exchange(self, own: int) -> None:
        answers = await self._call(
            EXCHANGE,
            ("HSET", GATEWAYS_KEY, self._gateway_id, f"{own}:{self._beat}"),
            ("EXPIRE", GATEWAYS_KEY, GATEWAYS_TTL_S),
            ("HGETALL", GATEWAYS_KEY),
        )
        if answers is None:
            return
        counts: dict[str, str] = answers[-1]
        dead = self._note_beats(counts)
        live = self._live(counts)
        self._others = sum(_count(counts[each]) for each in live)
        self._gateways, self._exchanged_s = 1 + len(live), time.monotonic()
        if dead:
            await self._call("prune", ("HDEL", GATEWAYS_KEY, *dead))

    def _note_beats(self, published: Mapping[str, str]) -> list[str]:
        """Note the beats of other gateways, and return the gateways that are long dead."""
        now_s, dead = time.monotonic(), []
        for gateway_id, value in published.items():
            beat = value.partition(":")[2]
            known = self._seen.get(gateway_id)
            if known is None or known[0] != beat:
                self._seen[gateway_id] = known = (beat, now_s)
            if now_s - known[1] > GATEWAY_PRUNE_S and gateway_id != self._gateway_id:
                dead.append(gateway_id)
        return dead

    def _live(self, published: Iterable[str]) -> set[str]:
        """Return the other gateways that are alive, of those with a beat."""
        oldest_s = time.monotonic() - GATEWAY_STALE_S
        beating = {each for each in published if self._seen[each][1] > oldest_s}
        return beating - {self._gateway_id}

    async def _call(self, call: str, *commands: Command) -> list[Any] | None:
        """The answers to ``commands``, which are sent together, or None on failure, timeout, or
        during the pause after a failure."""
        if time.monotonic() < self._paused_until_s:
            REDIS_FAILURES.labels(call).inc()
            return None
        try:
            async with (
                asyncio.timeout(redis_clients.CALL_TIMEOUT_S * 2),
                self._slots,
                self._redis.pipeline(transaction=False) as pipe,
            ):
                for command in commands:
                    pipe.execute_command(*command)
                answers: list[Any] = await pipe.execute()
        except (*redis_clients.ERRORS, TimeoutError) as error:
            REDIS_FAILURES.labels(call).inc()
            self._paused_until_s = time.monotonic() + PAUSE_AFTER_FAILURE_S
            self._note(error)
            return None
        if call == EXCHANGE:  # A server may answer reads and refuse writes; this call does both.
            self._note(None)
        return answers

    def _note(self, error: Exception | None) -> None:
        self._availability.note(error)
        REDIS_UP.set(error is None)


def _count(published: str) -> int:
    """Return the number before the beat, if any; 0 if it is not a number."""
    count = published.partition(":")[0]
    return int(count) if count.isdigit() else 0
