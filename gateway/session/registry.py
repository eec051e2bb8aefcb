"""Creates the sessions of this gateway, reserves their ids, resumes and ends them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from gateway.session import events as e
from gateway.session.core import Session
from gateway.session.endpointer import EndpointerConfig
from gateway.session.limits import SessionLimits, Traits
from gateway.session.models import ServedModels
from gateway.session.resume import NEW_SESSION, NOT_RESUMABLE, UNAVAILABLE, ResumePoint, token_hash
from gateway.session.runner import Services, SessionRunner
from gateway.session.table import SessionTable, has_token
from gateway.session.takeover import Send, Takeover
from gateway.settings import GatewaySettings
from gateway.storage.callers import Caller
from gateway.storage.redis_metadata import RedisMetadata
from gateway.telemetry import metrics
from persistence.reads import SessionReader, StoreUnavailable
from wire.messages import Claim, Claimed, Stored

ID_CHECK_TIMEOUT_S = 0.5
METADATA_UPDATE_EVERY_S = 5.0


def wall_ms() -> int:
    """Milliseconds of the wall clock, for values that people read."""
    return time.time_ns() // 1_000_000


class SessionRegistry:
    """``running`` maps ids to running sessions; ``find`` returns ended ones, too.

    ``send`` sends a message to the broker, and ``services`` is the gateway for the sessions.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        gateway_id: str,
        *,
        reader: SessionReader,
        redis_metadata: RedisMetadata,
        send: Send,
        services: Services,
        models: ServedModels,
    ) -> None:
        self._settings = settings
        self._gateway_id = gateway_id
        self._reader = reader
        self._redis_metadata = redis_metadata
        self._services = services
        self._models = models
        self._send = send
        self._takeover = Takeover(gateway_id, reader, send)
        self._table = SessionTable(settings.resume_wait_s)
        self.running = self._table.running
        self.find = self._table.find
        self.find_own = self._table.find_own
        self._metadata_due_s = 0.0

    # ------------------------------------------------------------------------------------- creation

    def new_runner(self, caller: Caller, traits: Traits) -> SessionRunner:
        """Make a session for ``caller``. It has no id yet: see ``reserve_or_resume``."""
        return self._runner(caller, traits, secrets.token_urlsafe(24), NEW_SESSION)

    def _runner(
        self, caller: Caller, traits: Traits, resume_token: str, resume_point: ResumePoint
    ) -> SessionRunner:
        limits = SessionLimits(
            segment_deadline_ms=int(self._settings.segment_deadline_s * 1000),
            speaker_similarity_min=self._settings.speaker_similarity_min,
            resume_wait_s=self._settings.resume_wait_s,
        )
        session = Session(
            limits.for_protocol(traits),
            EndpointerConfig(endpoint_silence_ms=self._settings.endpoint_silence_ms),
            resume_token=resume_token,
            client=caller.address if traits.resumable else f"{caller.address} ({traits.name})",
            tenant=caller.tenant,
            wall_offset_ms=wall_ms() - int(time.monotonic() * 1000),
            resume_point=resume_point,
            lane=traits.lane,
        )
        return SessionRunner(session, self._services, traits, caller)

    async def reserve_or_resume(
        self,
        runner: SessionRunner,
        start: e.Start,
        admit: Callable[[str], e.Problem | None] = lambda _model: None,
    ) -> SessionRunner | e.Problem:
        """Return the session for ``start``: ``runner`` itself, its model chosen and its id now
        reserved, or the session that the resume token belongs to. Otherwise a problem for the
        client. ``admit`` decides whether the model may have another session."""
        session_id = start.session_id
        if start.resume_token is not None:
            found = await self._resume(runner, start, start.resume_token)
            refused = isinstance(found, e.Problem)
            metrics.SESSIONS.labels("resume_refused" if refused else "resumed").inc()
            return found
        model = self._models.choose(start)
        if isinstance(model, e.Problem):
            return model
        # Ids are unique over all tenants; the answer does not reveal the owner.
        known = self.find(session_id) is not None or await self._is_taken(session_id)
        if known or self.find(session_id) is not None:
            metrics.SESSIONS.labels("id_refused").inc()
            return e.Problem(code="session_exists", message="this session_id is taken")
        if (no_room := admit(model.name)) is not None:
            return no_room
        runner.model = model
        self._add(runner, session_id)
        metrics.SESSIONS.labels("started").inc()
        self._redis_metadata.update_session(
            session_id,
            user_id=start.user_id,
            mode=start.mode,
            language=start.language,
            started_at_ms=wall_ms(),
        )
        return runner

    def _add(self, runner: SessionRunner, session_id: str) -> None:
        self.running[session_id] = runner
        self._redis_metadata.update_session(
            session_id,
            gateway_id=self._gateway_id,
            tenant=runner.session.tenant,
            status="active",
        )

    async def _resume(
        self, new: SessionRunner, start: e.Start, resume_token: str
    ) -> SessionRunner | e.Problem:
        session_id = start.session_id
        here = self._table.find(session_id)
        if here is not None:
            own = here.session.tenant == new.session.tenant
            if not own or not has_token(here, token_hash(resume_token)):
                return NOT_RESUMABLE
            # A session that is ending will soon be in the database, and can be resumed from there.
            return here if here.session.resumable else UNAVAILABLE
        resume_point = await self._takeover.take(session_id, resume_token, new.session.tenant)
        if isinstance(resume_point, e.Problem):
            return resume_point
        # A session keeps its model. One that was stored before models has none.
        model = self._models.get_or_unserved(resume_point.model) if resume_point.model else None
        chosen = model or self._models.choose(start)
        if isinstance(chosen, e.Problem):
            return chosen
        runner = self._runner(new.caller, new.traits, resume_token, resume_point)
        runner.model = chosen
        self._add(runner, session_id)
        return runner

    async def _is_taken(self, session_id: str) -> bool:
        if await self._redis_metadata.session_exists(session_id):
            return True
        try:
            async with asyncio.timeout(ID_CHECK_TIMEOUT_S):
                return await self._reader.exists(session_id)
        except (StoreUnavailable, TimeoutError):
            # Sessions continue without the stores. If the id was taken, the first rows are kept.
            return False

    # ------------------------------------------------------------------------------------------ end

    def end(self, runner: SessionRunner) -> None:
        if self._table.end(runner, time.monotonic()):
            metrics.SESSIONS.labels("ended").inc()
            self._update_metadata(runner.session, runner.session.early_end or "finished")

    def forget(self, session_id: str) -> None:
        """Remove a deleted session."""
        self._table.forget(session_id)
        self._redis_metadata.forget_session(session_id)

    async def claim_deleted(self, session_id: str, tenant: str) -> None:
        """Have other gateways end the session, if one of them runs it. Its rows are deleted in any
        case; while the database is unavailable, it ends there with its client's connection."""
        try:
            stored = await self._reader.owner_state(session_id, tenant)
        except StoreUnavailable:
            return
        if stored is not None and stored["status"] == "active":
            self._send(
                Claim(
                    session_id=session_id,
                    generation=stored["generation"],
                    resume_token_hash=stored["resume_token_hash"],
                    deleted=True,
                )
            )

    def on_deleted(self, message: Claimed) -> bool:
        """Another gateway deletes a session: end it. Return whether it is here."""
        runner = self._table.claimed(message)
        if runner is None:
            return False
        if not runner.session.over:
            runner.feed(e.Deleted())
        self.forget(message.session_id)
        return True

    def on_claimed(self, message: Claimed) -> None:
        """Another gateway resumes a session: hand it over if it is here."""
        if self._table.hand_over(message):
            metrics.SESSIONS.labels("moved").inc()

    def on_stored(self, message: Stored) -> None:
        """Hand over sessions of which a newer generation is stored, and continue takeovers that
        wait for their record."""
        for index in message.superseded:
            key = message.keys[index]
            if self._table.supersede(key.session_id, key.generation):
                metrics.SESSIONS.labels("moved").inc()
        self._takeover.note_stored(message.keys)

    def tick(self, now_s: float) -> None:
        """Forget old sessions, and update the metadata of running ones."""
        self._table.forget_old(now_s)
        if now_s >= self._metadata_due_s:
            self._metadata_due_s = now_s + METADATA_UPDATE_EVERY_S
            for runner in self.running.values():
                self._update_metadata(runner.session, runner.session.state.value)

    def _update_metadata(self, session: Session, status: str) -> None:
        self._redis_metadata.update_session(
            session.session_id,
            status=status,
            gateway_id=self._gateway_id,
            chunk_count=session.chunk_count,
            segment_count=session.segment_count,
            duration_ms=session.duration_ms,
            updated_at_ms=wall_ms(),
        )
