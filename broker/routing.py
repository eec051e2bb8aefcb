"""SANS-IO core of the broker: events in, actions out (see ``broker.events``).

The broker decides who recognises what, and who gets the answer. It keeps nothing that a gateway
could not send again: a job until it is answered, and no result or record at all. A job's end is
one answer to its gateway, and for a final job one publication; or it is dropped, with a counter
that says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker import answers
from broker import events as e
from broker import limits as limit
from broker.arrivals import ArrivalRate
from broker.jobs import PendingJob, audio_place
from broker.peers import Gateways, Strangers, Subscriptions, is_utf8
from broker.scheduler import Scheduler
from broker.workers import Worker
from wire import messages as m
from wire import versions
from wire.publication import Publication

_Handler = Callable[[bytes, Any, float], None]


class Broker:
    """Feed it with ``handle`` and perform the actions in order.

    The caller's duties: ``now_s`` is monotonic; a refused send or publication is told as an event;
    ``Tick`` comes about twenty times a second, after what was received. ``epoch`` is random for
    each life of the broker.
    """

    def __init__(self, *, epoch: str, limits: limit.Limits) -> None:
        self.epoch = epoch
        self.gateways = Gateways(limits.lease_s)
        self.scheduler = Scheduler(
            epoch, limits, act=self._act, answer=self._answer, owned=self._is_owned
        )
        self._lease_s = limits.lease_s
        self._jobs = self.scheduler.jobs
        self._workers = self.scheduler.workers
        self._strangers = Strangers()
        self._subscriptions = Subscriptions()
        self._arrivals = ArrivalRate()
        self._failed_total = 0
        self._ticked_s: float | None = None
        self._load_due_s = 0.0
        self._actions: list[e.Action] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            e.FrontReceived: self._on_front,
            e.BackReceived: self._on_back,
            e.FrontRejected: self._on_front_rejected,
            e.BackRejected: self._on_back_rejected,
            e.FrontUnsent: self._on_front_unsent,
            e.BackUnsent: self._on_back_unsent,
            e.Unpublished: self._on_unpublished,
            e.SubscriptionChanged: self._on_subscription,
            e.Tick: self._on_tick,
        }
        self._front: dict[type, _Handler] = {
            m.Hello: self._on_hello,
            m.Job: self._on_job,
            m.Cancel: self._on_cancel,
            m.Record: self._on_record,
            m.Claim: self._on_claim,
            m.Stored: self._on_stored,
        }
        self._back: dict[type, _Handler] = {
            m.Ready: self._on_ready,
            m.Heartbeat: self._on_heartbeat,
            m.WorkerResult: self._on_worker_result,
            m.Bye: self._on_bye,
        }

    def handle(self, event: e.Event, now_s: float) -> list[e.Action]:
        """Take one event; returns what is to be done, in order."""
        self._handlers[type(event)](event, now_s)
        self.scheduler.dispatch(now_s)
        actions, self._actions = self._actions, []
        return actions

    def load(self) -> m.Load:
        """What gateways are told of our state."""
        workers = [worker for worker in self._workers if not worker.draining]
        queue = self.scheduler.queue
        throughput_rtfx = self._workers.throughput_rtfx
        # What a live job that comes now waits for: it goes before all that is bulk.
        waiting_ms = queue.audio_ms - queue.bulk_audio_ms + self._workers.held_audio_ms
        wait_ms = round(waiting_ms / throughput_rtfx) if workers else limit.EST_WAIT_MS_MAX
        return m.Load(
            broker_epoch=self.epoch,
            queued_audio_ms=queue.audio_ms,
            queued=len(queue),
            in_flight=self._workers.held,
            failed_total=self._failed_total,
            workers=len(workers),
            workers_busy=sum(bool(worker.held) for worker in workers),
            throughput_rtfx=throughput_rtfx,
            est_wait_ms=min(wait_ms, limit.EST_WAIT_MS_MAX) if waiting_ms else 0,
            models=tuple(sorted({w.model for w in workers})[: limit.MODELS_TOLD_MAX]),
            arriving_audio_rate=self._arrivals.per_s,
            expected_audio_rate=self.gateways.expected_audio_rate,
            gateways=len(self.gateways),
        )

    def validate(self) -> None:
        """Assert what must hold between events. For tests: it looks at everything."""
        assert not self._actions
        self.scheduler.validate()
        assert all(not self._strangers.is_quarantined(worker.identity) for worker in self._workers)
        assert len(self.gateways) <= limit.GATEWAYS_MAX and len(self._workers) <= limit.WORKERS_MAX

    def _act(self, action: e.Action) -> None:
        self._actions.append(action)

    def _count(self, reason: str) -> None:
        self._actions.append(e.Count(reason))

    # ---------------------------------------------------------------------- gateways, persistence

    def _on_front(self, event: e.FrontReceived, now_s: float) -> None:
        handler = self._front.get(type(event.message))
        if handler is None:
            self._count("front_unexpected")
        else:
            handler(event.identity, event.message, now_s)

    def _on_front_rejected(self, _event: e.FrontRejected, _now_s: float) -> None:
        self._count("front_malformed")

    def _on_front_unsent(self, event: e.FrontUnsent, _now_s: float) -> None:
        # A gateway that is only reconnecting comes back within its lease, and asks again for what
        # it misses. One that is gone loses the lease.
        self._count(f"unsent_{type(event.message).__name__.lower()}")

    def _on_hello(self, identity: bytes, hello: m.Hello, now_s: float) -> None:
        if hello.gateway_id.encode() != identity:
            self._count("identity_mismatch")
            return
        version = versions.choose(hello.version_min, hello.version_max)
        if version is None:
            self._count("version_refused")
            self._act(e.SendFront(identity, answers.REFUSED))
            return
        if identity in self.gateways:
            self._act(e.SendFront(identity, self._welcome(version)))
        if self._hear_gateway(identity, now_s, version):
            self.gateways.expect(identity, hello.expected_audio_rate)

    def _welcome(self, version: int = versions.VERSION_MIN) -> m.Welcome:
        return m.Welcome(broker_epoch=self.epoch, version=version)

    def _hear_gateway(
        self, identity: bytes, now_s: float, version: int = versions.VERSION_MIN
    ) -> bool:
        """Renew the gateway's lease. After a restart of the broker, any message introduces a
        gateway, which then learns the new epoch. False: the gateway is not served."""
        if identity not in self.gateways:
            if self.gateways.full:
                self._count("gateways_full")
                return False
            if not is_utf8(identity):
                self._count("identity_mismatch")
                return False
            self._act(e.SendFront(identity, self._welcome(version)))
        self.gateways.hear(identity, now_s)
        return True

    def _on_job(self, identity: bytes, job: m.Job, now_s: float) -> None:
        if not self._hear_gateway(identity, now_s):
            return
        known = self._jobs.final(job.session_id, job.seq)
        if known is not None and known.job.generation != job.generation:
            if known.job.generation > job.generation:
                self._count("stale_generation")
                return
            # The session was taken over, and what it asks for now need not be the same audio.
            self.scheduler.drop(known, "superseded_generation")
            known = None
        if job.partial:
            self._on_partial(identity, job, now_s, superseded=known is not None)
        elif known is not None:
            # Sent again, perhaps by another gateway to which the client has moved.
            self._jobs.give_to(known, identity)
            self._count("duplicate_job")
        elif self.scheduler.accept(identity, job, now_s):
            if job.lane == "live":
                self._arrivals.note(job.session_id, m.pcm_duration_ms(job.pcm), now_s)
            for partial in self._jobs.partials(job.session_id):
                if audio_place(partial.job) <= audio_place(job):
                    self.scheduler.drop(partial, "partial_superseded")
        else:
            self._count("overloaded")
            refusal = answers.failure_of(job, answers.OVERLOADED, attempt=0)
            self._act(e.SendFront(identity, refusal))

    def _on_partial(self, identity: bytes, job: m.Job, now_s: float, *, superseded: bool) -> None:
        """The newest partial of a session replaces those that wait. It may be dropped anywhere,
        counted and unanswered: the next one, or the final job, tells more."""
        partials = self._jobs.partials(job.session_id)
        if superseded or any(audio_place(p.job) >= audio_place(job) for p in partials):
            self._count("partial_late")
            return
        for partial in partials:
            if partial.place == "partial":
                self.scheduler.drop(partial, "partial_superseded")
        if not self.scheduler.accept(identity, job, now_s):
            self._count("partial_overloaded")

    def _on_cancel(self, identity: bytes, cancel: m.Cancel, now_s: float) -> None:
        # From any gateway: whoever is asked to delete a session need not be the one that ran it.
        if self._hear_gateway(identity, now_s):
            for entry in self._jobs.of_session(cancel.session_id):
                self.scheduler.drop(entry, "cancelled")

    def _on_claim(self, identity: bytes, claim: m.Claim, now_s: float) -> None:
        if not self._hear_gateway(identity, now_s):
            return
        claimed = answers.claimed_of(claim)
        for gateway in self.gateways:
            if gateway != identity:
                self._act(e.SendFront(gateway, claimed))

    def _on_record(self, identity: bytes, record: m.Record, now_s: float) -> None:
        if self._hear_gateway(identity, now_s):
            self._publish(
                m.PublishedRecord(
                    broker_epoch=self.epoch, gateway_id=identity.decode(), record=record
                )
            )

    def _on_stored(self, _identity: bytes, stored: m.Stored, _now_s: float) -> None:
        gateway = stored.gateway_id.encode()
        if gateway in self.gateways:
            self._act(e.SendFront(gateway, stored))
        else:
            self._count("stored_for_unknown_gateway")

    def _is_owned(self, entry: PendingJob) -> bool:
        return entry.gateway in self.gateways

    def _answer(self, entry: PendingJob, result: m.Result) -> None:
        if not result.partial:
            self._failed_total += result.error is not None
            outcome = "text" if result.error is None else result.error.code
            job = entry.job
            waited = result.queue_ms, job.session_id, job.seq, entry.received_s
            self._act(e.Answered(job.lane, outcome, *waited))
        if self._is_owned(entry):
            self._act(e.SendFront(entry.gateway, result))
        else:
            self._count("result_for_gone_gateway")
        if not result.partial:
            gateway_id = entry.gateway.decode()
            self._publish(
                m.PublishedResult(broker_epoch=self.epoch, gateway_id=gateway_id, result=result)
            )

    # -------------------------------------------------------------------------------- publications

    def _publish(self, message: Publication) -> None:
        """Nothing is kept: what persistence does not confirm, its gateway sends again."""
        if self._subscriptions.wanted(message):
            self._act(e.Publish(message))
        else:
            self._count("no_subscriber")

    def _on_unpublished(self, _event: e.Unpublished, _now_s: float) -> None:
        self._count("subscriber_full")

    def _on_subscription(self, event: e.SubscriptionChanged, _now_s: float) -> None:
        if not self._subscriptions.change(event.prefix, present=event.present):
            self._count("foreign_topic")

    # ------------------------------------------------------------------------------------- workers

    def _on_back(self, event: e.BackReceived, now_s: float) -> None:
        handler = self._back.get(type(event.message))
        if self._strangers.is_quarantined(event.identity):
            self._count("quarantined")
        elif handler is None:
            self._offend(event.identity, "back_unexpected")
        else:
            handler(event.identity, event.message, now_s)

    def _on_back_rejected(self, event: e.BackRejected, _now_s: float) -> None:
        self._offend(event.identity, "back_malformed")

    def _on_back_unsent(self, event: e.BackUnsent, _now_s: float) -> None:
        """The socket has no such peer any more, or one that stopped reading: either way the worker
        is gone, until it introduces itself again. The job at hand has not reached it."""
        message = event.message
        self._count(f"unsent_{type(message).__name__.lower()}")
        worker = self._workers.get(event.identity)
        if worker is not None and isinstance(message, m.WorkerJob):
            if message.job_id in worker.held:
                self.scheduler.give_back(worker, [(message.job_id, message.attempt)])
            self.scheduler.lose(worker)
            self._count("worker_unreachable")

    def _offend(self, identity: bytes, reason: str) -> None:
        """Something that no correct worker sends."""
        self._count(reason)
        worker = self._workers.get(identity)
        if worker is None:
            return
        worker.offences += 1
        if worker.offences >= limit.OFFENCES_MAX:
            self._strangers.quarantine(identity)
            self.scheduler.lose(worker)
            self._count("worker_quarantined")

    def _on_ready(self, identity: bytes, ready: m.Ready, now_s: float) -> None:
        if ready.worker_id.encode() != identity or ready.credits == 0:
            self._offend(identity, "bad_ready")
            return
        version = versions.choose(ready.version_min, ready.version_max)
        if version is None:
            self._count("version_refused")
            self._act(e.SendBack(identity, answers.REFUSED))
            return
        worker = self._workers.get(identity)
        if worker is not None:
            # It begins anew, so it may have lost what it held.
            self.scheduler.lose(worker)
            self._count("worker_began_anew")
        if len(self._workers) >= limit.WORKERS_MAX:
            self._count("workers_full")
            return
        self._workers.add(identity, ready, now_s)
        self._act(e.SendBack(identity, self._welcome(version)))

    def _known_worker(self, identity: bytes, now_s: float) -> Worker | None:
        """The worker, whose message shows that it lives; or None, and it is told our epoch."""
        worker = self._workers.get(identity)
        if worker is None:
            self._count("unknown_worker")
            if self._strangers.may_welcome(identity, now_s):
                self._act(e.SendBack(identity, self._welcome()))
        else:
            worker.heard_s = now_s
        return worker

    def _on_heartbeat(self, identity: bytes, heartbeat: m.Heartbeat, now_s: float) -> None:
        worker = self._known_worker(identity, now_s)
        if worker is not None and worker.overdue:
            # A batch that began after we gave an attempt up can't be the one that it hangs in.
            began_s = now_s - heartbeat.busy_ms / 1000
            past = [attempt for attempt, since_s in worker.overdue.items() if since_s < began_s]
            self._workers.forget_overdue(worker, past)

    def _on_worker_result(self, identity: bytes, answer: m.WorkerResult, now_s: float) -> None:
        worker = self._known_worker(identity, now_s)
        if worker is None:
            return
        attempt = (answer.job_id, answer.attempt)
        if answer.broker_epoch != self.epoch:
            self._count("stale_result")
        elif self.scheduler.complete(worker, answer, now_s):
            self._leave_if_drained(worker)
        elif attempt in worker.past:
            self._count("stale_result")
            self._workers.forget_overdue(worker, [attempt])
        else:
            self._offend(identity, "unheld_result")

    def _on_bye(self, identity: bytes, bye: m.Bye, now_s: float) -> None:
        worker = self._workers.get(identity)
        if worker is None:
            self._count("unknown_worker")
            return
        worker.heard_s = now_s
        self._workers.drain(worker)
        if bye.broker_epoch == self.epoch:
            returned = [(job.job_id, job.attempt) for job in bye.returned]
            self.scheduler.give_back(worker, returned)
        self._leave_if_drained(worker)

    def _leave_if_drained(self, worker: Worker) -> None:
        if worker.draining and not worker.held:
            self.scheduler.lose(worker)

    # ---------------------------------------------------------------------------------------- time

    def _on_tick(self, _event: e.Tick, now_s: float) -> None:
        self._excuse_pause(now_s)
        self._arrivals.advance(now_s)
        for worker in [w for w in self._workers if now_s - w.heard_s > self._lease_s]:
            self.scheduler.lose(worker)
            self._count("worker_lease_ended")
        for gateway in self.gateways.take_silent(now_s):
            self._count("gateway_lease_ended")
            for entry in self._jobs.of_gateway(gateway):
                # What is assigned goes on, for persistence, and for the gateway to which the
                # client moves and which will ask for it.
                if entry.place != "assigned":
                    self.scheduler.drop(entry, "gateway_gone")
        self.scheduler.expire(now_s)
        if now_s >= self._load_due_s:
            self._load_due_s = now_s + limit.LOAD_EVERY_S
            load = self.load()
            for gateway in self.gateways:
                self._act(e.SendFront(gateway, load))

    def _excuse_pause(self, now_s: float) -> None:
        """While we ourselves were stopped we heard nobody, and that is nobody's fault."""
        pause_s = 0.0 if self._ticked_s is None else now_s - self._ticked_s
        self._ticked_s = now_s
        if pause_s > limit.PAUSE_S:
            self.gateways.excuse(pause_s, now_s)
            for worker in self._workers:
                worker.heard_s = min(now_s, worker.heard_s + pause_s)
