"""SANS-IO: may one more client come in? Decided before the WebSocket upgrade, so that a refusal
is plain HTTP 503 with ``Retry-After`` and costs the client nothing. Once admitted, a session is
never refused work for want of capacity."""

from __future__ import annotations

from dataclasses import dataclass

from wire.messages import Load

LOAD_SILENCE_S_MAX = 1.0
"""The broker tells its load every 250 ms; none for this long means that there is no broker."""
RETRY_AFTER_NO_WORKER_S = 5
RETRY_AFTER_FULL_S = 5
RETRY_AFTER_BACKLOG_S = 15
REOPEN_BELOW = 0.7
"""Hysteresis: refusing for too long a wait goes on until the wait is below this share of the
limit, so that admission does not flap at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """HTTP 503: why, for programs and for people, and when to try again."""

    code: str
    message: str
    retry_after_s: int


class Admission:
    """``connections`` counts over all gateways; ``max_connections`` 0 means no limit."""

    def __init__(self, *, max_connections: int, min_workers: int, est_wait_ms_max: int) -> None:
        self._max_connections = max_connections
        self._min_workers = max(1, min_workers)
        self._est_wait_ms_max = est_wait_ms_max
        self._load: Load | None = None
        self._load_at_s = float("-inf")
        self._overloaded = False

    def note_load(self, load: Load, now_s: float) -> None:
        self._load, self._load_at_s = load, now_s
        if load.est_wait_ms > self._est_wait_ms_max:
            self._overloaded = True
        elif load.est_wait_ms < self._est_wait_ms_max * REOPEN_BELOW:
            self._overloaded = False

    def load(self, now_s: float) -> Load | None:
        """The broker's load, or None if there is no broker to speak of."""
        if now_s - self._load_at_s > LOAD_SILENCE_S_MAX:
            return None
        return self._load

    def readiness(self, now_s: float) -> Refusal | None:
        """What keeps this gateway from being ready: the broker or its workers."""
        load = self.load(now_s)
        if load is None:
            return Refusal(
                code="no_broker",
                message="the broker does not answer",
                retry_after_s=RETRY_AFTER_NO_WORKER_S,
            )
        if load.workers < self._min_workers:
            return Refusal(
                code="no_worker",
                message=f"{load.workers} workers are ready, {self._min_workers} are needed",
                retry_after_s=RETRY_AFTER_NO_WORKER_S,
            )
        return None

    def decide(
        self, now_s: float, *, connections: int, backlog_full: bool, draining: bool
    ) -> Refusal | None:
        """``connections`` includes the one that asks."""
        if draining:
            return Refusal(code="draining", message="this gateway is stopping", retry_after_s=1)
        not_ready = self.readiness(now_s)
        if not_ready is not None:
            return not_ready
        if self._max_connections and connections > self._max_connections:
            return Refusal(
                code="max_connections",
                message=f"all {self._max_connections} connections are taken",
                retry_after_s=RETRY_AFTER_FULL_S,
            )
        if backlog_full:
            return Refusal(
                code="storage_backlog",
                message="too much is waiting to be stored",
                retry_after_s=RETRY_AFTER_BACKLOG_S,
            )
        if self._overloaded:
            load = self.load(now_s)
            wait_ms = load.est_wait_ms if load is not None else 0
            return Refusal(
                code="overloaded",
                message=f"results would take about {wait_ms} ms",
                retry_after_s=max(1, -(-wait_ms // 1000)),
            )
        return None
