"""Lets connections in, and counts them: the admission of this gateway, with Redis' count of all."""

from __future__ import annotations

import time
from typing import Protocol

from gateway.admission.policy import Admission, Refusal, Return
from gateway.storage.redis_metadata import RedisMetadata
from gateway.telemetry import metrics
from gateway.telemetry.activity import Activity


class Sessions(Protocol):
    """What the gate has to know of the gateway behind it (``gateway.server.Server``)."""

    @property
    def storage_backlog_full(self) -> bool: ...
    def is_here(self, session_id: str) -> bool:
        """Whether the session is on this gateway, with or without its client."""


class ConnectionGate:
    """``connections`` are those of this gateway; ``draining``: nobody comes in any more."""

    def __init__(
        self,
        admission: Admission,
        redis_metadata: RedisMetadata,
        activity: Activity,
        sessions: Sessions,
    ) -> None:
        self.connections = 0
        self.draining = False
        self._admission = admission
        self._redis_metadata = redis_metadata
        self._activity = activity
        self._sessions = sessions

    async def enter(self, resume: str | None = None) -> Refusal | None:
        """Whether one more may come in. None: it is counted, and ``leave`` must be called when it
        ends. ``resume`` is the session that it says it comes back to; whether it is the client's
        own is shown by the token in its ``start``, and what a stranger gains by naming one is a
        connection, of which ``MAX_CONNECTIONS`` still is the limit."""
        self.connections += 1
        try:
            refusal = await self._decide(resume)
        except BaseException:
            # The client went away while we asked Redis: it must not be counted for ever.
            self.connections -= 1
            raise
        if refusal is not None:
            self.connections -= 1
            metrics.REFUSED.labels(refusal.code).inc()
            self._activity.note_refusal(refusal.code, time.monotonic())
        metrics.CONNECTIONS.set(self.connections)
        return refusal

    async def would_refuse(self, resume: str | None = None) -> Refusal | None:
        """What ``enter`` would say now, but that others' connections are as last heard of."""
        own = self.connections + 1
        total = self._redis_metadata.known_connections(own)
        refusal = await self._by_load_or_return(own, resume)
        return refusal or self._admission.count(connections=total)

    def leave(self) -> None:
        self.connections -= 1
        metrics.CONNECTIONS.set(self.connections)

    async def _decide(self, resume: str | None) -> Refusal | None:
        refusal = await self._by_load_or_return(self.connections, resume)
        if refusal is not None:
            return refusal
        self._admission.note_admitted(time.monotonic())
        if not self._admission.counts_connections:
            return None
        total = await self._redis_metadata.count_connections(self.connections)
        return self._admission.count(connections=total)

    async def _by_load_or_return(self, own: int, resume: str | None) -> Refusal | None:
        here = resume is not None and self._sessions.is_here(resume)
        refusal = self._by_load(own, "here" if here else "no")
        # Redis is asked last: of many that come at once, most are refused without it.
        if refusal is not None and await self._runs_elsewhere(resume):
            refusal = self._by_load(own, "elsewhere")
        return refusal

    async def _runs_elsewhere(self, resume: str | None) -> bool:
        return resume is not None and await self._redis_metadata.session_runs(resume)

    def _by_load(self, own: int, returns: Return) -> Refusal | None:
        return self._admission.decide(
            time.monotonic(),
            own=own,
            backlog_full=self._sessions.storage_backlog_full,
            draining=self.draining,
            returns=returns,
        )
