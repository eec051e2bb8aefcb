"""The gateway around its connections: the broker link, storage, admission, and time."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from dataclasses import replace

import structlog

from gateway.admission.gate import ConnectionGate
from gateway.admission.policy import Admission
from gateway.admission.probes import probe_load
from gateway.audio.audio_input import AudioInput
from gateway.audio.decoder_pool import DecoderPool
from gateway.audio.timeline import samples_to_ms
from gateway.audio.vad import VadEngine
from gateway.broker_client import BrokerClient
from gateway.dialects.dialect import Traits
from gateway.session import events as e
from gateway.session.core import Session
from gateway.session.endpointer import EndpointerConfig
from gateway.session.resume import NEW_SESSION, NOT_RESUMABLE, UNAVAILABLE, ResumePoint
from gateway.session.runner import SessionRunner
from gateway.session.segments import RETRYABLE
from gateway.session.states import SessionLimits
from gateway.session.table import SessionTable
from gateway.session.takeover import Takeover
from gateway.settings import GatewaySettings
from gateway.storage.outbox import Outbox
from gateway.storage.redis_metadata import RedisMetadata
from gateway.storage.spool import Spool
from gateway.telemetry import metrics
from gateway.telemetry.activity import Activity
from persistence.reads import SessionReader, StoreUnavailable
from wire.messages import (
    JOB_DEADLINE_MS_MAX,
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
METADATA_UPDATE_EVERY_S = 5.0
ID_CHECK_TIMEOUT_S = 0.5
DELETE_CONFIRM_S = 2.0
"""How long DELETE waits for COMMIT before it answers 202 instead of 200."""


def wall_ms() -> int:
    """Wall clock, milliseconds: only for what people read."""
    return time.time_ns() // 1_000_000


class Server:
    """Everything a gateway process has one of. ``open`` and ``close`` on the event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.gateway_id = new_identity("gateway")
        self.started_s = time.monotonic()
        self.vad = VadEngine()
        self.reader = SessionReader(settings.database_address())
        self.redis_metadata = RedisMetadata(settings.redis_address(), self.gateway_id)
        self.admission = Admission(settings)
        self.activity = Activity()
        self.outbox = Outbox(settings.outbox_records_max)
        self._table = SessionTable(settings.resume_wait_s)
        self.sessions = self._table.running
        self.gate = ConnectionGate(self.admission, self.redis_metadata, self.activity, self)
        self._decoders = DecoderPool(settings.decoders_max)
        self._broker = BrokerClient(
            settings.broker_frontend,
            self.gateway_id,
            keys=settings.bus_keys("gateway"),
            on_message=self._on_message,
            on_broker_restart=self._on_broker_restart,
            expected_audio_rate=lambda: self.admission.next_expected_audio_rate(
                time.monotonic(), own=self.gate.connections
            ),
        )
        self._takeover = Takeover(self.gateway_id, self.reader, self._broker.send)
        self.spool = Spool(settings.data_dir / "spool", self.gateway_id)
        self._deletions: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._metadata_due_s = self._sessions_due_s = 0.0
        self._log = structlog.get_logger()

    async def open(self) -> None:
        self.vad.start()
        await self._decoders.start()
        await self.reader.open()
        self._broker.open()
        self.redis_metadata.open(lambda: self.gate.connections)
        now_s = time.monotonic()
        for record in self.spool.take():
            self.outbox.restore(record, now_s)
        self._tasks = [
            asyncio.create_task(self._tick_on()),
            asyncio.create_task(probe_load(self.vad, self.admission)),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.redis_metadata.close()
        await self._broker.close()
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
        return self._table.find(session_id) is not None

    def new_runner(self, client: str, dialect: Traits) -> SessionRunner:
        """A new session for a client at this address, nothing started yet."""
        limits = self._session_limits()
        if not dialect.resumable:
            client = f"{client} ({dialect.name})"
            limits = replace(limits, resume_wait_s=0.0, stored_wait_s=0.0)
        if dialect.lane == "bulk":
            limits = replace(limits, segment_deadline_ms=JOB_DEADLINE_MS_MAX)
        token = secrets.token_urlsafe(24)
        return self._session(client, token, NEW_SESSION, limits, dialect.lane)

    def _session_limits(self) -> SessionLimits:
        return SessionLimits(
            segment_deadline_ms=int(self.settings.segment_deadline_s * 1000),
            resume_wait_s=self.settings.resume_wait_s,
        )

    def _session(
        self,
        client: str,
        resume_token: str,
        resume_point: ResumePoint,
        limits: SessionLimits,
        lane: Lane = "live",
    ) -> SessionRunner:
        session = Session(
            limits,
            EndpointerConfig(endpoint_silence_ms=self.settings.endpoint_silence_ms),
            resume_token=resume_token,
            client=client,
            wall_offset_ms=wall_ms() - int(time.monotonic() * 1000),
            resume_point=resume_point,
            lane=lane,
        )
        return SessionRunner(session, self)

    async def claim(self, runner: SessionRunner, start: e.Start) -> SessionRunner | e.Problem:
        """The session that ``start`` asks for: ``runner``'s new one, whose id is reserved now, or
        the one that a resume token shows to be the client's own; or why neither."""
        session_id = start.session_id
        if start.resume_token is not None:
            found = await self._resume(runner, session_id, start.resume_token)
            refused = isinstance(found, e.Problem)
            metrics.SESSIONS.labels("resume_refused" if refused else "resumed").inc()
            return found
        known = self.is_here(session_id) or await self._is_taken(session_id)
        if known or self.is_here(session_id):
            metrics.SESSIONS.labels("id_refused").inc()
            return e.Problem(code="session_exists", message="this session_id is taken")
        self._add(runner, session_id)
        metrics.SESSIONS.labels("started").inc()
        self.redis_metadata.update_session(
            session_id,
            user_id=start.user_id,
            mode=start.mode,
            language=start.language,
            started_at_ms=wall_ms(),
        )
        return runner

    def _add(self, runner: SessionRunner, session_id: str) -> None:
        self.sessions[session_id] = runner
        self.redis_metadata.update_session(session_id, gateway_id=self.gateway_id, status="active")

    async def _resume(
        self, new: SessionRunner, session_id: str, resume_token: str
    ) -> SessionRunner | e.Problem:
        here = self._table.find(session_id)
        if here is not None:
            if not self._table.check_token(here, resume_token):
                return NOT_RESUMABLE
            # One that is being given up is soon in the database, and can be brought back from it.
            return here if here.session.resumable else UNAVAILABLE
        resume_point = await self._takeover.take(session_id, resume_token)
        if isinstance(resume_point, e.Problem):
            return resume_point
        fresh = new.session
        runner = self._session(fresh.client, resume_token, resume_point, fresh.limits)
        self._add(runner, session_id)
        return runner

    async def _is_taken(self, session_id: str) -> bool:
        if await self.redis_metadata.session_exists(session_id):
            return True
        try:
            async with asyncio.timeout(ID_CHECK_TIMEOUT_S):
                return await self.reader.status(session_id) is not None
        except (StoreUnavailable, TimeoutError):
            # Without its stores the pipeline goes on; first rows win if the id was taken.
            return False

    def release(self, runner: SessionRunner) -> None:
        if self._table.end(runner, time.monotonic()):
            metrics.SESSIONS.labels("ended").inc()
            self._update_metadata(runner.session, runner.session.early_end or "finished")

    def new_audio(self, start: e.Start, first_sample: int) -> AudioInput:
        return AudioInput(
            None if start.encoded else start.sample_rate_hz,
            self._decoders,
            max(0, self.settings.session_audio_s_max * 1000 - samples_to_ms(first_sample)),
        )

    def submit_job(self, job: Job) -> None:
        self._broker.send(job)

    def submit_record(self, record: Record) -> None:
        self.outbox.put_record(record, time.monotonic())
        self._broker.send(record)

    def keep_result(self, result: Result, *, contested: bool, waited_s: float) -> None:
        now_s = time.monotonic()
        self.activity.note_latency(waited_s, now_s)
        copy = self.outbox.put_result(result, now_s, contested=contested)
        if contested:
            self._broker.send(copy)

    def cancel(self, cancel: Cancel) -> None:
        self._broker.send(cancel)

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
            runner = self.sessions.get(message.session_id)
            if runner is None:
                metrics.RESULTS_DISCARDED.labels("no_session").inc()
            else:
                runner.feed(e.ResultArrived(result=message))
        elif isinstance(message, Stored):
            self._on_stored(message)
        elif isinstance(message, Claimed) and self._table.hand_over(message):
            metrics.SESSIONS.labels("moved").inc()

    def _note_result(self, result: Result) -> None:
        if result.error is not None and result.error.code in RETRYABLE:
            return  # The broker had no room for the job, which comes again.
        self.activity.note_result(
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
            if place in superseded and self._table.supersede(key.session_id, key.generation):
                metrics.SESSIONS.labels("moved").inc()
        self._takeover.note_stored(message.keys)
        self.spool.confirm(message.keys)
        by_session: defaultdict[str, list[StoredKey]] = defaultdict(list)
        for confirmed in self.outbox.confirm(message.keys, time.monotonic()):
            key = confirmed.key
            if confirmed.waited_s is not None:
                metrics.STORE_SECONDS.observe(confirmed.waited_s)
            by_session[key.session_id].append(key)
            if key.kind == "record" and key.seq == DELETED_RECORD_SEQ:
                deleted = self._deletions.get(key.session_id)
                if deleted is not None:
                    deleted.set()
        for session_id, keys in by_session.items():
            runner = self._table.find(session_id)
            if runner is not None:
                runner.feed(e.KeysStored(keys=tuple(keys)))

    def _on_broker_restart(self) -> None:
        for runner in list(self.sessions.values()):
            runner.feed(e.BrokerRestarted())

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tick(time.monotonic())

    def _tick(self, now_s: float) -> None:
        if now_s >= self._sessions_due_s:
            self._sessions_due_s = now_s + SESSION_TICK_S
            for runner in list(self.sessions.values()):
                runner.feed(TICK)
        self._table.forget_old(now_s)
        for record in self.outbox.due(now_s):
            self._broker.send(record)
        self._show(now_s)
        if now_s >= self._metadata_due_s:
            self._metadata_due_s = now_s + METADATA_UPDATE_EVERY_S
            for runner in self.sessions.values():
                self._update_metadata(runner.session, runner.session.state.value)

    def _show(self, now_s: float) -> None:
        metrics.SESSIONS_ACTIVE.set(len(self.sessions))
        metrics.OUTBOX.set(len(self.outbox))
        metrics.OUTBOX_AGE.set(self.outbox.age_s(now_s))
        self.gate.show(now_s)

    def _update_metadata(self, session: Session, status: str) -> None:
        self.redis_metadata.update_session(
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
        runner = self.sessions.get(session_id)
        if runner is not None:
            runner.feed(e.Deleted())
        self._table.forget(session_id)
        self.outbox.forget_session(session_id)
        self.redis_metadata.forget_session(session_id)
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
