"""The gateway around its connections: the broker link, storage, admission, and time."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from dataclasses import replace

import structlog

from gateway import events as e
from gateway import metrics
from gateway.activity import Activity
from gateway.admission import Admission
from gateway.audio import AudioInput
from gateway.decoding import DecoderPool
from gateway.dialects.dialect import Traits
from gateway.directory import Directory
from gateway.door import Door
from gateway.life_cycle import SessionLimits
from gateway.link import BrokerLink
from gateway.origin import Origin
from gateway.outbox import Outbox
from gateway.pulse import keep_pulse
from gateway.registry import Registry
from gateway.segmenter import SegmenterConfig
from gateway.segments import RETRYABLE
from gateway.session import Session
from gateway.session_host import SessionHost
from gateway.settings import GatewaySettings
from gateway.spool import Spool
from gateway.takeover import NOT_RESUMABLE, UNAVAILABLE, Takeover
from gateway.timeline import samples_to_ms
from gateway.utterances import NEW_SESSION
from gateway.vad import VadEngine
from persistence.reads import SessionReader, StoreUnavailable
from wire.messages import (
    Cancel,
    Claimed,
    Job,
    Lane,
    Load,
    Message,
    Record,
    Result,
    Stored,
    StoredKey,
)
from wire.records import DELETED_RECORD_SEQ, SessionDeleted, to_body
from wire.sockets import new_identity

TICK_S = 0.1
SESSION_TICK_S = 0.2
"""As often all sessions are told: what they wait for are tenths of seconds and more, and telling
200 of them takes some 1.4 ms."""
TICK = e.Tick()
REGISTRY_UPDATE_EVERY_S = 5.0
ID_CHECK_TIMEOUT_S = 0.5
JOB_DEADLINE_MS_MAX = 600_000
"""Longest a bulk segment may wait, the broker's own limit: it stands behind all that is live."""
DELETE_CONFIRM_S = 2.0
"""How long DELETE waits for COMMIT before it answers 202 instead of 200."""


def wall_ms() -> int:
    """Wall clock, milliseconds: only for what people read."""
    return time.time_ns() // 1_000_000


class Hub:
    """Everything a gateway process has one of. ``open`` and ``close`` on the event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.gateway_id = new_identity("gateway")
        self.started_s = time.monotonic()
        self.vad = VadEngine()
        self.reader = SessionReader(settings.database_address())
        self.registry = Registry(settings.redis_address(), self.gateway_id)
        self.admission = Admission(settings.admission_limits())
        self.activity = Activity()
        self.outbox = Outbox(settings.outbox_records_max)
        self._directory = Directory(settings.resume_wait_s)
        self.sessions = self._directory.running
        self.door = Door(self.admission, self.registry, self.activity, self)
        self._decoders = DecoderPool(settings.decoders_max)
        self._link = BrokerLink(
            settings.broker_frontend,
            self.gateway_id,
            keys=settings.bus_keys("gateway"),
            on_message=self._on_message,
            on_broker_restart=self._on_broker_restart,
            expected_x=lambda: self.admission.tell_expected_x(
                time.monotonic(), own=self.door.connections
            ),
        )
        self._takeover = Takeover(self.gateway_id, self.reader, self._link.send)
        self.spool = Spool(settings.data_dir / "spool", self.gateway_id)
        self._deletions: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._registry_due_s = self._sessions_due_s = 0.0
        self._log = structlog.get_logger()

    async def open(self) -> None:
        self.vad.start()
        await self._decoders.start()
        await self.reader.open()
        self._link.open()
        self.registry.open(lambda: self.door.connections)
        now_s = time.monotonic()
        for record in self.spool.take():
            self.outbox.restore(record, now_s)
        self._tasks = [
            asyncio.create_task(self._tick_on()),
            asyncio.create_task(keep_pulse(self.vad, self.admission)),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.registry.close()
        await self._link.close()
        await self._decoders.close()
        await self.reader.close()
        self.vad.close()
        self.spool.close()

    # ------------------------------------------------------ what connections and sessions ask of us

    @property
    def chunk_bytes_max(self) -> int:
        return self.settings.chunk_bytes_max

    @property
    def storage_backlog_full(self) -> bool:
        return self.outbox.full

    def is_here(self, session_id: str) -> bool:
        """Whether the session runs here, or ended here a short while ago."""
        return self._directory.find(session_id) is not None

    def new_host(self, client: str, dialect: Traits) -> SessionHost:
        """A new session for a client at this address, nothing started yet."""
        limits = self.settings.session_limits()
        if not dialect.resumable:
            client = f"{client} ({dialect.name})"
            limits = replace(limits, resume_wait_s=0.0, stored_wait_s=0.0)
        if dialect.lane == "bulk":
            limits = replace(limits, segment_deadline_ms=JOB_DEADLINE_MS_MAX)
        token = secrets.token_urlsafe(24)
        return self._session(client, token, NEW_SESSION, limits, dialect.lane)

    def _session(
        self,
        client: str,
        resume_token: str,
        origin: Origin,
        limits: SessionLimits,
        lane: Lane = "live",
    ) -> SessionHost:
        session = Session(
            limits,
            SegmenterConfig(endpoint_silence_ms=self.settings.endpoint_silence_ms),
            resume_token=resume_token,
            client=client,
            wall_ms=wall_ms,
            origin=origin,
            lane=lane,
        )
        return SessionHost(session, self)

    async def claim(self, host: SessionHost, start: e.Start) -> SessionHost | e.Problem:
        """The session that ``start`` asks for: ``host``'s new one, whose id is reserved now, or
        the one that a resume token shows to be the client's own; or why neither."""
        session_id = start.session_id
        if start.resume_token is not None:
            found = await self._resume(host, session_id, start.resume_token)
            refused = isinstance(found, e.Problem)
            metrics.SESSIONS.labels("resume_refused" if refused else "resumed").inc()
            return found
        known = self.is_here(session_id) or await self._is_taken(session_id)
        if known or self.is_here(session_id):
            metrics.SESSIONS.labels("id_refused").inc()
            return e.Problem(code="session_exists", message="this session_id is taken")
        self._add(host, session_id)
        metrics.SESSIONS.labels("started").inc()
        self.registry.update_session(
            session_id,
            user_id=start.user_id,
            mode=start.mode,
            language=start.language,
            started_at_ms=wall_ms(),
        )
        return host

    def _add(self, host: SessionHost, session_id: str) -> None:
        self.sessions[session_id] = host
        self.registry.update_session(session_id, gateway_id=self.gateway_id, status="active")

    async def _resume(
        self, new: SessionHost, session_id: str, resume_token: str
    ) -> SessionHost | e.Problem:
        here = self._directory.find(session_id)
        if here is not None:
            if not self._directory.is_clients_own(here, resume_token):
                return NOT_RESUMABLE
            # One that is being given up is soon in the database, and can be brought back from it.
            return here if here.session.resumable else UNAVAILABLE
        origin = await self._takeover.take(session_id, resume_token)
        if isinstance(origin, e.Problem):
            return origin
        fresh = new.session
        host = self._session(fresh.client, resume_token, origin, fresh.limits)
        self._add(host, session_id)
        return host

    async def _is_taken(self, session_id: str) -> bool:
        if await self.registry.session_exists(session_id):
            return True
        try:
            async with asyncio.timeout(ID_CHECK_TIMEOUT_S):
                return await self.reader.status(session_id) is not None
        except (StoreUnavailable, TimeoutError):
            # Without its stores the pipeline goes on; first rows win if the id was taken.
            return False

    def release(self, host: SessionHost) -> None:
        if self._directory.end(host, time.monotonic()):
            metrics.SESSIONS.labels("ended").inc()
            self._tell_registry(host.session, host.session.gone or "finished")

    def new_audio(self, start: e.Start, first_sample: int) -> AudioInput:
        return AudioInput(
            None if start.encoded else start.sample_rate_hz,
            self._decoders,
            max(0, self.settings.session_audio_s_max * 1000 - samples_to_ms(first_sample)),
        )

    def submit_job(self, job: Job) -> None:
        if not job.partial:
            self.activity.note_submitted(job.session_id, job.seq, time.monotonic())
        self._link.send(job)

    def submit_record(self, record: Record) -> None:
        self.outbox.put_record(record, time.monotonic())
        self._link.send(record)

    def keep_result(self, result: Result, *, contested: bool) -> None:
        copy = self.outbox.put_result(result, time.monotonic(), contested=contested)
        if contested:
            self._link.send(copy)

    def cancel(self, cancel: Cancel) -> None:
        self._link.send(cancel)

    # ------------------------------------------------------------------------------------- the bus

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Load):
            now_s = time.monotonic()
            self.admission.note_load(message, now_s)
            self.activity.note_level(
                sessions=len(self.sessions), queued=message.queued, now_s=now_s
            )
        elif isinstance(message, Result):
            self._note_result(message)
            host = self.sessions.get(message.session_id)
            if host is None:
                metrics.RESULTS_DISCARDED.labels("no_session").inc()
            else:
                host.feed(e.ResultArrived(result=message))
        elif isinstance(message, Stored):
            self._on_stored(message)
        elif isinstance(message, Claimed) and self._directory.let_go(message):
            metrics.SESSIONS.labels("moved").inc()

    def _note_result(self, result: Result) -> None:
        if result.error is not None and result.error.code in RETRYABLE:
            return  # The broker had no room for the job, which comes again.
        self.activity.note_result(
            session_id=result.session_id,
            seq=result.seq,
            partial=result.partial,
            failed=result.error is not None,
            audio_ms=result.end_ms - result.start_ms,
            worker_id=result.worker_id,
            infer_ms=result.infer_ms,
            batch_jobs=result.batch_jobs,
            now_s=time.monotonic(),
        )

    def _on_stored(self, message: Stored) -> None:
        superseded = frozenset(message.superseded)
        for place, key in enumerate(message.keys if superseded else ()):
            if place in superseded and self._directory.supersede(key.session_id, key.generation):
                metrics.SESSIONS.labels("moved").inc()
        self._takeover.note_stored(message.keys)
        self.spool.confirm(message.keys)
        by_session: defaultdict[str, list[StoredKey]] = defaultdict(list)
        for key in self.outbox.confirm(message.keys, time.monotonic()):
            by_session[key.session_id].append(key)
            if key.kind == "record" and key.seq == DELETED_RECORD_SEQ:
                confirmed = self._deletions.get(key.session_id)
                if confirmed is not None:
                    confirmed.set()
        for session_id, keys in by_session.items():
            host = self._directory.find(session_id)
            if host is not None:
                host.feed(e.KeysStored(keys=tuple(keys)))

    def _on_broker_restart(self) -> None:
        for host in list(self.sessions.values()):
            host.feed(e.BrokerRestarted())

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tick(time.monotonic())

    def _tick(self, now_s: float) -> None:
        if now_s >= self._sessions_due_s:
            self._sessions_due_s = now_s + SESSION_TICK_S
            for host in list(self.sessions.values()):
                host.feed(TICK)
        self._directory.forget_old(now_s)
        for record in self.outbox.due(now_s):
            self._link.send(record)
        self._show(now_s)
        if now_s >= self._registry_due_s:
            self._registry_due_s = now_s + REGISTRY_UPDATE_EVERY_S
            for host in self.sessions.values():
                self._tell_registry(host.session, host.session.state.value)

    def _show(self, now_s: float) -> None:
        metrics.SESSIONS_ACTIVE.set(len(self.sessions))
        metrics.OUTBOX.set(len(self.outbox))
        metrics.OUTBOX_AGE.set(self.outbox.age_s(now_s))
        metrics.show_admission(self.admission, now_s, self.door.connections)

    def _tell_registry(self, session: Session, status: str) -> None:
        self.registry.update_session(
            session.session_id,
            status=status,
            gateway_id=self.gateway_id,
            chunk_count=session.chunk_count,
            segment_count=session.segment_count,
            duration_ms=session.duration_ms,
            updated_at_ms=wall_ms(),
        )

    # ------------------------------------------------------------------------------------- deletion

    async def delete(self, session_id: str) -> bool:
        """End the session if it is live here, and have its rows removed for good. Returns whether
        that is committed; if not, it will be."""
        host = self.sessions.get(session_id)
        if host is not None:
            host.feed(e.Deleted())
        self._directory.forget(session_id)
        self.outbox.forget_session(session_id)
        self.registry.forget_session(session_id)
        confirmed = self._deletions.setdefault(session_id, asyncio.Event())
        body = to_body(SessionDeleted(requested_at_ms=wall_ms()))
        self.submit_record(Record(session_id=session_id, record_seq=DELETED_RECORD_SEQ, body=body))
        try:
            async with asyncio.timeout(DELETE_CONFIRM_S):
                await confirmed.wait()
        except TimeoutError:
            return False
        finally:
            self._deletions.pop(session_id, None)
        metrics.SESSIONS.labels("deleted").inc()
        return True
