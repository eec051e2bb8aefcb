"""Admits connections and counts them: this gateway's policy, with the count of all gateways from
Redis."""

from __future__ import annotations

import time
from typing import Protocol

from gateway.admission.idle import IdleConnections
from gateway.admission.policy import Admission, Refusal, ResumedAt
from gateway.admission.quotas import Quotas
from gateway.admission.retries import Retries
from gateway.admission.token_uses import SESSIONS_CODE
from gateway.storage.callers import NOBODY, Caller
from gateway.storage.redis_metadata import RedisMetadata
from gateway.telemetry import metrics
from gateway.telemetry.activity import Activity
from wire.messages import Lane


class Sessions(Protocol):
    """The gateway's sessions, as far as the gate needs them."""

    @property
    def storage_backlog_full(self) -> bool: ...
    def is_here(self, session_id: str, tenant: str) -> bool:
        """Whether the tenant's session is on this gateway, with or without its client."""


class ConnectionGate:
    """``connections`` counts those of this gateway; ``draining`` refuses all further ones."""

    def __init__(
        self,
        admission: Admission,
        redis_metadata: RedisMetadata,
        activity: Activity,
        sessions: Sessions,
        idle: IdleConnections,
        quotas: Quotas,
    ) -> None:
        self.connections = 0
        self.draining = False
        self._admission = admission
        self._redis_metadata = redis_metadata
        self._activity = activity
        self._sessions = sessions
        self._idle = idle
        self._quotas = quotas
        self._retries = Retries()

    async def enter(
        self,
        resume: str | None = None,
        model: str | None = None,
        lane: Lane = "live",
        caller: Caller = NOBODY,
    ) -> Refusal | None:
        """Admit or refuse a connection of ``caller``. None: it is counted, and ``leave`` must be
        called when it ends. ``model`` is that of ``model_of``; if it is None, the caller must call
        ``enter_model`` as soon as it knows the model.

        ``resume`` is the id of the session that the client wants to resume. It is only a hint: the
        token in ``start`` proves the right to it. By naming a session of its tenant a client
        gains a connection, which ``MAX_CONNECTIONS`` still limits.
        """
        self.connections += 1
        self._quotas.enter(caller)
        try:
            refusal = await self._decide(resume, model, lane, caller)
        except BaseException:
            # The client disconnected during the call to Redis.
            self.leave(caller)
            raise
        if refusal is not None:
            self.leave(caller)
            self._noted(refusal)
            refusal = self._retries.spread(refusal, time.monotonic())
        metrics.CONNECTIONS.set(self.connections)
        return refusal

    def enter_session(self, caller: Caller) -> Refusal | None:
        """Admit or refuse a new session on a connection of ``caller``, whose limits may have been
        reached since it was admitted, or which was admitted to resume another session."""
        return self._noted(self._quotas.known_refusal(caller))

    def refuse_audio(self, caller: Caller) -> Refusal | None:
        """Refuse a file of ``caller`` that would be recognised later, if so."""
        return self._noted(self._quotas.audio_refusal(caller))

    def enter_model(self, model: str, lane: Lane = "live") -> Refusal | None:
        """Admit or refuse the session of a connection that was admitted without its model."""
        now_s = time.monotonic()
        refusal = self._admission.decide_model(
            now_s, own=self.connections, total=self._total, model=model, lane=lane
        )
        if refusal is None:
            self._admission.note_model(now_s, model)
        return self._noted(refusal)

    def model_of(self, asked: str) -> str | None:
        """The served name of the model, as far as it is known before a session's start: the one
        that the address asks for, or the only one."""
        served = self._admission.models
        if asked in served:
            return asked
        return served[0] if len(served) == 1 else None

    def _noted(self, refusal: Refusal | None) -> Refusal | None:
        if refusal is not None:
            metrics.REFUSED.labels(refusal.code).inc()
            self._activity.note_refusal(refusal.code, time.monotonic())
        return refusal

    async def would_refuse(
        self,
        resume: str | None = None,
        model: str | None = None,
        caller: Caller = NOBODY,
    ) -> Refusal | None:
        """Return what ``enter`` would, by the last known connections of other gateways."""
        refusal = await self._refusal(resume, model, "live", caller, more=1)
        total = self._redis_metadata.known_connections(self.connections + 1)
        return refusal or self._admission.count(connections=total)

    def note_idle(self, address: str, count: int) -> None:
        """``count`` more connections from ``address`` have no session; negative: fewer."""
        self._idle.add(address, count)
        metrics.IDLE_CONNECTIONS.set(self._idle.total)

    def leave(self, caller: Caller = NOBODY) -> None:
        """An admitted connection of ``caller`` has ended."""
        self.connections -= 1
        self._quotas.leave(caller)
        metrics.CONNECTIONS.set(self.connections)

    def show(self, now_s: float) -> None:
        """Update the metrics of the figures that admission compares with its limits."""
        known = {"own": self.connections, "total": self._total}
        metrics.UTILISATION.set(self._admission.utilisation(now_s, **known))
        metrics.show_workers_needed(self._admission.workers_needed(now_s, **known))
        metrics.LINK_UTILISATION.set(self._admission.link_utilisation(now_s, **known))
        metrics.BUSY.set(self._admission.busy(now_s, own=self.connections))
        metrics.DELAY.set(self._admission.delay_ms(now_s) / 1000)
        metrics.BROKER_UP.set(self._admission.load(now_s) is not None)

    @property
    def _total(self) -> int:
        """Connections of all gateways, as last known."""
        return self._redis_metadata.known_connections(self.connections)

    async def _decide(
        self, resume: str | None, model: str | None, lane: Lane, caller: Caller
    ) -> Refusal | None:
        refusal = await self._refusal(resume, model, lane, caller)
        if refusal is not None:
            return refusal
        self._admission.note_admitted(time.monotonic(), model)
        known = self._redis_metadata
        if self._admission.must_count(
            connections=self._total, gateways=known.gateways, known_s=known.known_s
        ):
            total = await known.count_connections(self.connections)
            # Others may have become idle during the call to Redis.
            refusal = self._admission.count(connections=total)
            refusal = refusal or self._by_idle(resume, lane, caller)
        return refusal

    async def _refusal(
        self, resume: str | None, model: str | None, lane: Lane, caller: Caller, *, more: int = 0
    ) -> Refusal | None:
        """By the limits of the token, the load, and the number of idle connections. ``more``: the
        connection in question is not counted yet."""
        refusal = await self._quotas.refuse_session(caller, more=more)
        if refusal is not None and not await self._is_counted_already(refusal, resume, caller):
            return refusal
        own = self.connections + more
        refusal = self._by_load(
            own, "here" if self._is_here(resume, caller) else "nowhere", model, lane
        )
        # Redis is queried last, so that most refusals under load do not need it.
        if refusal is not None and await self._runs_elsewhere(resume, caller):
            refusal = self._by_load(own, "elsewhere", model, lane)
        return refusal or self._by_idle(resume, lane, caller)

    async def _is_counted_already(
        self, refusal: Refusal, resume: str | None, caller: Caller
    ) -> bool:
        """Whether the resumed session already counts towards the limit of its token, because its
        last connection is still counted though it may be lost."""
        if refusal.code != SESSIONS_CODE or resume is None:
            return False
        return self._is_here(resume, caller) or await self._runs_elsewhere(resume, caller)

    def _by_idle(self, resume: str | None, lane: Lane, caller: Caller) -> Refusal | None:
        """The connection of a file has a session at once."""
        if resume is not None or lane == "bulk":
            return None
        return self._idle.refusal(caller.address)

    def _is_here(self, resume: str | None, caller: Caller) -> bool:
        return resume is not None and self._sessions.is_here(resume, caller.tenant)

    async def _runs_elsewhere(self, resume: str | None, caller: Caller) -> bool:
        if resume is None:
            return False
        return await self._redis_metadata.session_runs(resume, caller.tenant)

    def _by_load(
        self, own: int, resumed_at: ResumedAt, model: str | None, lane: Lane
    ) -> Refusal | None:
        return self._admission.decide(
            time.monotonic(),
            own=own,
            total=self._redis_metadata.known_connections(own),
            backlog_full=self._sessions.storage_backlog_full,
            draining=self.draining,
            resumed_at=resumed_at,
            model=model,
            lane=lane,
        )
