"""One gateway: its parts, its messages from the broker, and its clock.

A result goes from ``Brokers`` through ``Server._on_result`` and ``SessionRunner.feed`` to the
session's core. The runner performs the actions of the core: it answers the client and calls
``Server.keep_result``.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

import structlog

from gateway.admission.gate import ConnectionGate
from gateway.admission.idle import IdleConnections
from gateway.admission.policy import Admission, served_by
from gateway.admission.probes import probe_load
from gateway.admission.quotas import Quotas
from gateway.audio.audio_input import AudioInput
from gateway.audio.decoder_pool import DecoderPool
from gateway.audio.timeline import samples_to_ms
from gateway.audio.vad import VadEngine
from gateway.brokers.brokers import Brokers
from gateway.session import events as e
from gateway.session.models import ServedModels
from gateway.session.registry import SessionRegistry, wall_ms
from gateway.session.runner import SessionRunner
from gateway.session.session_jobs import RETRYABLE
from gateway.settings import GatewaySettings
from gateway.storage.callers import NO_LIMITS, Caller
from gateway.storage.outbox import Outbox
from gateway.storage.redis_metadata import RedisMetadata
from gateway.storage.spool import Spool
from gateway.telemetry import metrics
from gateway.telemetry.activity import Activity
from persistence.reads import SessionReader
from wire.messages import (
    Cancel,
    Claimed,
    Job,
    Load,
    Message,
    Record,
    Result,
    ServedModel,
    Stored,
    StoredKey,
)
from wire.records import DELETED_RECORD_SEQ, SessionDeleted, to_body
from wire.sockets import new_identity

TICK_S = 0.1
SESSION_TICK_S = 0.4
"""Tick interval of all sessions. They wait for half a second and more, and a tick of 200
sessions takes about 1.4 ms."""
TICK = e.Tick()
DELETE_CONFIRM_S = 2.0
"""Time that DELETE waits for COMMIT before it answers 202 instead of 200."""


class Server:
    """A gateway without its web server. Call ``open`` and ``close`` on the event loop.

    It is the ``Services`` of its sessions and the ``Sessions`` of its connection gate.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.gateway_id = new_identity("gateway")
        self.started_s = time.monotonic()
        self.vad = VadEngine()
        self.reader = SessionReader(settings.database_address())
        self.redis_metadata = RedisMetadata(settings.redis_address(), self.gateway_id)
        self.quotas = Quotas(self.redis_metadata)
        self.admission = Admission(settings)
        self.activity = Activity()
        self.outbox = Outbox(settings.outbox_records_max)
        self.spool = Spool(settings.spool_directory, self.gateway_id)
        self.gate = ConnectionGate(
            self.admission,
            self.redis_metadata,
            self.activity,
            self,
            IdleConnections(
                settings.idle_connections_max, settings.idle_connections_per_address_max
            ),
            self.quotas,
        )
        self._decoders = DecoderPool(settings.decoders_max)
        self.brokers = Brokers(
            settings.broker_frontend,
            self.gateway_id,
            keys=settings.bus_keys("gateway"),
            system_id=settings.system_id,
            on_message=self._on_message,
            on_jobs_lost=self._on_jobs_lost,
            on_subscribed=self._resend_records,
            expected_audio=lambda: self.admission.next_expected_audio_rates(
                time.monotonic(), own=self.gate.connections
            ),
        )
        self.models = ServedModels(settings.default_model, settings.model_names)
        self.registry = SessionRegistry(
            settings,
            self.gateway_id,
            reader=self.reader,
            redis_metadata=self.redis_metadata,
            send=self.brokers.send,
            services=self,
            models=self.models,
        )
        self.sessions = self.registry.running
        self._deletions: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._sessions_due_s = 0.0
        self._audio_s = 0.0
        """Audio that the metrics do not show yet."""

    async def open(self) -> None:
        self.vad.start()
        await self._decoders.start()
        await self.reader.open()
        self.brokers.open()
        self.redis_metadata.open(lambda: self.gate.connections)
        now_s = time.monotonic()
        for record in self.spool.take():
            self.outbox.put_record(record, now_s, wait_s=0.0)
        self._tasks = [
            asyncio.create_task(self._run_clock()),
            asyncio.create_task(probe_load(self.vad, self.admission)),
            asyncio.create_task(self.quotas.run()),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with AsyncExitStack() as steps:  # An error of one step skips no other one.
            steps.callback(self.spool.close)
            steps.callback(self.vad.close)
            steps.push_async_callback(self.reader.close)
            steps.push_async_callback(self._decoders.close)
            steps.push_async_callback(self.brokers.close)
            steps.push_async_callback(self.redis_metadata.close)

    # --------------------------------------------------------------- services for gate and sessions

    @property
    def storage_backlog_full(self) -> bool:
        return self.outbox.full

    def is_here(self, session_id: str, tenant: str) -> bool:
        return self.registry.find_own(session_id, tenant) is not None

    def session_ended(self, runner: SessionRunner) -> None:
        self.registry.end(runner)
        self.brokers.forget(runner.session.session_id)

    def new_audio(self, start: e.Start, first_sample: int) -> AudioInput:
        return AudioInput(
            None if start.encoded else start.sample_rate_hz,
            self._decoders,
            max(0, self.settings.session_audio_s_max * 1000 - samples_to_ms(first_sample)),
            declared_raw=start.declared_raw,
            declared=start.declared,
        )

    def send(self, message: Job | Cancel) -> None:
        self.brokers.send(message)

    def note_audio(self, caller: Caller, audio_s: float) -> None:
        self._audio_s += audio_s
        if caller.limits is not NO_LIMITS:
            self.quotas.note_audio(caller, audio_s)

    def refused_audio(self, caller: Caller) -> e.AudioRefused | None:
        if caller.limits is NO_LIMITS:
            return None
        refusal = self.quotas.audio_refusal(caller)
        if refusal is None:
            return None
        return e.AudioRefused(code=refusal.code, message=refusal.message)

    def submit_record(self, record: Record) -> None:
        self.outbox.put_record(record, time.monotonic())
        self.brokers.send(record)

    def keep_result(self, result: Result, *, contested: bool, waited_s: float) -> None:
        now_s = time.monotonic()
        self.activity.note_latency(waited_s, now_s)
        copy = self.outbox.put_result(result, now_s, contested=contested)
        if contested:
            self.brokers.send(copy)

    # --------------------------------------------------------------------------- broker messages

    def _on_message(self, message: Message) -> None:
        match message:
            case Result():
                self._on_result(message)
            case Stored():
                self._on_stored(message)
            case Claimed(deleted=True):
                if self.registry.on_deleted(message):
                    self.outbox.forget_session(message.session_id)
            case Claimed():
                self.registry.on_claimed(message)
            case Load():
                now_s = time.monotonic()
                self.admission.note_load(message, now_s)
                self._note_models(served_by(message), now_s)
                self.activity.note_level(
                    sessions=len(self.sessions), queued=message.queued, now_s=now_s
                )

    def _note_models(self, served: Sequence[ServedModel], now_s: float) -> None:
        if self.models.note(served, now_s):
            structlog.get_logger().error(
                "default_model_not_served",
                model=self.settings.default_model,
                served=self.models.names,
                setting="ASR_DEFAULT_MODEL" if self.settings.asr_default_model else "ASR_MODELS",
            )

    def _on_result(self, result: Result) -> None:
        # After a retryable error the session sends the job again.
        if result.error is None or result.error.code not in RETRYABLE:
            self.activity.note_result(result, time.monotonic())
        runner = self.sessions.get(result.session_id)
        if runner is None:
            metrics.RESULTS_DISCARDED.labels("no_session").inc()
        else:
            runner.feed(result)

    def _on_stored(self, message: Stored) -> None:
        self.registry.on_stored(message)
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
            runner = self.registry.find(session_id)
            if runner is not None:
                runner.feed(e.KeysStored(keys=tuple(keys)))

    def _resend_records(self) -> None:
        self.outbox.resend_all(time.monotonic())

    def _on_jobs_lost(self, session_ids: Iterable[str]) -> None:
        self._resend_records()  # They took the same connection.
        for session_id in session_ids:
            if (runner := self.sessions.get(session_id)) is not None:
                runner.feed(e.JobsMayBeLost())

    # ----------------------------------------------------------------------------------- the clock

    async def _run_clock(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tick(time.monotonic())

    def _tick(self, now_s: float) -> None:
        if now_s >= self._sessions_due_s:
            self._sessions_due_s = now_s + SESSION_TICK_S
            for runner in list(self.sessions.values()):
                runner.feed(TICK)
        for record in self.outbox.due(now_s):
            self.brokers.send(record, again=True)
        self.admission.note_broker_delay(self.brokers.answer_delay_s)
        self.admission.note_links(tuple(self.brokers.link_uses.values()))
        self._show(now_s)
        self.registry.tick(now_s)

    def _show(self, now_s: float) -> None:
        metrics.SESSIONS_ACTIVE.set(len(self.sessions))
        metrics.AUDIO_SECONDS.inc(self._audio_s)
        self._audio_s = 0.0
        metrics.OUTBOX.set(len(self.outbox))
        metrics.OUTBOX_AGE.set(self.outbox.age_s(now_s))
        metrics.BROKER_DELAY.set(self.brokers.answer_delay_s)
        self.gate.show(now_s)

    # ------------------------------------------------------------------------------------- deletion

    async def delete(self, session_id: str, tenant: str) -> bool:
        """End the session on every gateway, and delete its rows. Return whether the deletion is
        committed; if not, it will be."""
        runner = self.sessions.get(session_id)
        if runner is not None:
            runner.feed(e.Deleted())
        else:
            await self.registry.claim_deleted(session_id, tenant)
        self.registry.forget(session_id)
        self.outbox.forget_session(session_id)
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
