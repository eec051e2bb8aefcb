"""Clients of Redis for each form of ``REDIS_URL``. Calls have a short timeout and no second try."""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
import structlog
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from runtime.redis_address import RedisAddress, parse

CALL_TIMEOUT_S: Final = 0.25
ERRORS: Final = (RedisError, RedisClusterException, OSError)
"""Raised by a call without an answer."""
IN_PIPELINE: Final = " of pipeline caused error: "
UNTYPED: Final[Any] = redis


def described(error: Exception) -> dict[str, str]:
    """Fields of the log for a failed call. The library's texts name the server, and no password;
    those of a pipeline begin with a part of the failed command, which is left out."""
    reason = str(error).rpartition(IN_PIPELINE)[2] or "no answer in time"
    return {"error": type(error).__name__, "reason": reason}


def blocking(url: str) -> redis.Redis:
    """Return a client for threads; answers are text. It connects at its first call; one for a
    cluster at once, with ``ERRORS`` if no node answers."""
    client: redis.Redis = _client(UNTYPED, url, Retry(NoBackoff(), 0))
    return client


class Availability:
    """Logs when Redis becomes available, and each type of failure once until then. A later failure
    may be the one to fix: a server that starts late refuses connections at first, and a wrong
    password only after that."""

    def __init__(self) -> None:
        self.ready: bool | None = None
        self._logged: set[str] = set()

    def note(self, error: Exception | None) -> None:
        """``error``: of the last call; None: it was answered."""
        before, self.ready = self.ready, error is None
        if error is None:
            self._logged.clear()
            if not before:
                structlog.get_logger().info("redis_ready")
        elif type(error).__name__ not in self._logged:
            self._logged.add(type(error).__name__)
            structlog.get_logger().warning("redis_unavailable", **described(error))


class PeriodicCalls:
    """Calls Redis at an interval from a thread of its own, so that a stopped or slow server delays
    nothing else. A subclass defines ``call``, which sends the newest state: there is no queue.
    ``close`` returns within two call timeouts."""

    def __init__(self, url: str, name: str, interval_s: float, *, logs: bool = True) -> None:
        """``logs``: whether it logs that Redis becomes available or unavailable."""
        # Made on the thread: that of a cluster connects at once.
        self.client = functools.cache(functools.partial(blocking, url))
        self._interval_s = interval_s
        self._availability = Availability() if logs else None
        self._stopped = threading.Event()
        # A daemon thread, so that a blocked client cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(2 * CALL_TIMEOUT_S)

    def call(self) -> bool:
        """Return whether there was something to send. ``ERRORS`` may be raised."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                if self.call():
                    self._note(None)
            except ERRORS as error:
                self._note(error)
        with contextlib.suppress(*ERRORS):
            self.client().close()

    def _note(self, error: Exception | None) -> None:
        if self._availability is not None:
            self._availability.note(error)


def asynchronous(url: str) -> redis.asyncio.Redis:
    """A client for one event loop, which connects at its first call; answers are text."""
    retry = AsyncRetry(NoBackoff(), 0)
    client: redis.asyncio.Redis = _client(UNTYPED.asyncio, url, retry)
    return client


def _client(package: Any, url: str, retry: Any) -> Any:
    """``package``: ``redis`` or ``redis.asyncio``, whose classes have the same names."""
    address = parse(url)
    limits = {
        "socket_timeout": CALL_TIMEOUT_S,
        "socket_connect_timeout": CALL_TIMEOUT_S,
        "retry": retry,
        "decode_responses": True,
    }
    if address.form == "server":
        return package.from_url(address.url, **limits)
    options = {**limits, **_options_in(address)}
    if address.form == "sentinel":
        kept = {key: options[key] for key in options if key.startswith(("ssl", "socket", "retry"))}
        login = dict(address.sentinel_login)
        sentinels = package.sentinel.Sentinel(address.hosts, sentinel_kwargs={**kept, **login})
        return sentinels.master_for(address.service, **options)
    nodes = [package.cluster.ClusterNode(host, port) for host, port in address.hosts]
    # Its calls that are used here have the signatures of one server's client.
    return package.RedisCluster(startup_nodes=nodes, **options)


def _options_in(address: RedisAddress) -> dict[str, Any]:
    """The options of each server's connections that are in the URL."""
    options = dict(UNTYPED.connection.parse_url(address.url))
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    for name in ("host", "port", *(("db",) if address.form == "cluster" else ())):
        options.pop(name, None)
    return options
