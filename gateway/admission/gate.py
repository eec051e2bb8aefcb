"""Admits connections and counts them: this gateway's policy, with the count of all gateways from
Redis."""

from __future__ import annotations

import time
from typing import Protocol

from gateway.admission.policy import Admission, Refusal, Return
from gateway.storage.redis_metadata import RedisMetadata
from gateway.telemetry import metrics
from gateway.telemetry.activity import Activity
from wire.messages import Lane


class Sessions(Protocol):
    """The gateway's sessions, as far as the gate needs them."""

    @property
    def storage_backlog_full(self) -> bool: ...
    def is_here(self, session_id: str) -> bool:
        """Whether the session is on this gateway, with or without its client."""


class ConnectionGate:
    """``connections`` counts those of this gateway; ``draining`` refuses all further ones."""

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

    async def enter(
        self, resume: str | None = None, model: str | None = None, lane: Lane = "live"
    ) -> Refusal | None:
        """Admit or refuse a connection. None: it is counted, and the caller must call ``leave``
        when it ends. ``model`` is that of ``model_of``; if it is None, the caller must call
        ``enter_model`` as soon as it knows the model.

        ``resume`` is the session that the client wants to resume. It is only a hint: the resume
        token in ``start`` proves the right to it. By naming a foreign session a client gains a
        connection, which ``MAX_CONNECTIONS`` still limits.
        """
        self.connections += 1
        try:
            refusal = await self._decide(resume, model, lane)
        except BaseException:
            # The client disconnected during the call to Redis.
            self.connections -= 1
            raise
        if refusal is not None:
            self.connections -= 1
            self._note(refusal)
        metrics.CONNECTIONS.set(self.connections)
        return refusal

    def enter_model(self, model: str, lane: Lane = "live") -> Refusal | None:
        """Admit or refuse the session of a connection that was admitted without its model."""
        now_s = time.monotonic()
        refusal = self._admission.decide_model(now_s, own=self.connections, model=model, lane=lane)
        if refusal is None:
            self._admission.note_model(now_s, model)
        else:
            self._note(refusal)
        return refusal

    def model_of(self, asked: str) -> str | None:
        """The served name of the model, as far as it is known before a session's start: the one
        that the address asks for, or the only one."""
        served = self._admission.models
        if asked in served:
            return asked
        return served[0] if len(served) == 1 else None

    def _note(self, refusal: Refusal) -> None:
        metrics.REFUSED.labels(refusal.code).inc()
        self._activity.note_refusal(refusal.code, time.monotonic())

    async def would_refuse(
        self, resume: str | None = None, model: str | None = None
    ) -> Refusal | None:
        """Return what ``enter`` would, by the last known connections of other gateways."""
        own = self.connections + 1
        total = self._redis_metadata.known_connections(own)
        refusal = await self._by_load_or_return(own, resume, model)
        return refusal or self._admission.count(connections=total)

    def leave(self) -> None:
        """An admitted connection has ended."""
        self.connections -= 1
        metrics.CONNECTIONS.set(self.connections)

    def show(self, now_s: float) -> None:
        """Update the metrics that new sessions are judged by."""
        metrics.UTILISATION.set(self._admission.utilisation(now_s, own=self.connections))
        metrics.BUSY.set(self._admission.busy(now_s, own=self.connections))
        metrics.DELAY.set(self._admission.delay_ms(now_s) / 1000)
        metrics.BROKER_UP.set(self._admission.load(now_s) is not None)

    async def _decide(self, resume: str | None, model: str | None, lane: Lane) -> Refusal | None:
        refusal = await self._by_load_or_return(self.connections, resume, model, lane)
        if refusal is not None:
            return refusal
        self._admission.note_admitted(time.monotonic(), model)
        if not self._admission.counts_connections:
            return None
        total = await self._redis_metadata.count_connections(self.connections)
        return self._admission.count(connections=total)

    async def _by_load_or_return(
        self, own: int, resume: str | None, model: str | None, lane: Lane = "live"
    ) -> Refusal | None:
        here = resume is not None and self._sessions.is_here(resume)
        refusal = self._by_load(own, "here" if here else "no", model, lane)
        # Redis is asked last, so that most refusals under load do without it.
        if refusal is not None and await self._runs_elsewhere(resume):
            refusal = self._by_load(own, "elsewhere", model, lane)
        return refusal

    async def _runs_elsewhere(self, resume: str | None) -> bool:
        return resume is not None and await self._redis_metadata.session_runs(resume)

    def _by_load(self, own: int, returns: Return, model: str | None, lane: Lane) -> Refusal | None:
        return self._admission.decide(
            time.monotonic(),
            own=own,
            backlog_full=self._sessions.storage_backlog_full,
            draining=self.draining,
            returns=returns,
            model=model,
            lane=lane,
        )
