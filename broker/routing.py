"""Core: the routing of jobs and results, events in, actions out (see ``broker.events``).

The broker keeps a job until it is answered, and no results or records: gateways can send again
whatever it loses. A job ends with one answer to its gateway, and a final job with one publication
as well; or it is dropped, and counted with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from msgspec.structs import asdict, replace

from broker import answers
from broker import events as e
from broker import limits as limit
from broker.jobs import PendingJob, timeline_key
from broker.peers import Gateways, Subscriptions, UnregisteredWorkers, is_utf8
from broker.scheduler import Scheduler
from broker.workers import Worker
from runtime.link_rate import LinkUse
from wire import messages as m
from wire import versions
from wire.publication import Publication

_SETTING_OF = {
    m.Hello: "BROKER_FRONTEND",
    m.Ready: "BROKER_BACKEND",
    m.Stored: "BROKER_FRONTEND",
}
"""By the first message of a peer, its setting of the endpoint to use."""

_Handler = Callable[[bytes, Any, float], None]


class Broker:
    """Pass each event to ``handle`` and perform the returned actions in order.

    The caller must pass a monotonic ``now_s``, report each refused send or publication as an event,
    and pass ``Tick`` about twenty times a second, after the messages received before it. ``epoch``
    must be random for each start of the broker.
    """

    def __init__(self, *, epoch: str, limits: limit.Limits, system_id: str) -> None:
        self.epoch = epoch
        self.is_late = False
        """The messages of this turn have arrived some time before ``now_s``, because the broker did
        not run."""
        self._system_id = system_id
        self.gateways = Gateways(limits.lease_s)
        self.scheduler = Scheduler(
            epoch, limits, act=self._act, answer=self._answer, owned=self._is_owned
        )
        self._lease_s = limits.lease_s
        self._jobs = self.scheduler.jobs
        self._models = self.scheduler.models
        self._links = self.scheduler.links
        self._unregistered = UnregisteredWorkers()
        self._subscriptions = Subscriptions()
        self._failed_total = 0
        self._ticked_s: float | None = None
        self._load_due_s = 0.0
        self._link = LinkUse()
        """Use of the links to workers at the last tick."""
        self._actions: list[e.Action] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            e.Received: self._on_received,
            e.Rejected: self._on_rejected,
            e.Unsent: self._on_unsent,
            e.SubscriptionChanged: self._on_subscription,
            e.Tick: self._on_tick,
        }
        self._received: dict[e.Side, dict[type, _Handler]] = {
            "front": {
                m.Hello: self._on_hello,
                m.Job: self._on_job,
                m.Cancel: self._on_cancel,
                m.Record: self._on_record,
                m.Claim: self._on_claim,
                m.Stored: self._on_stored,
            },
            "back": {
                m.Ready: self._on_ready,
                m.Heartbeat: self._on_heartbeat,
                m.WorkerResult: self._on_worker_result,
                m.MarkArrived: self._on_mark_arrived,
                m.Bye: self._on_bye,
            },
        }

    def handle(self, event: e.Event, now_s: float) -> list[e.Action]:
        self._handlers[type(event)](event, now_s)
        self.scheduler.dispatch(now_s)
        actions, self._actions = self._actions, []
        return actions

    def load(self) -> m.Load:
        """The state of the broker, as gateways receive it."""
        link = self._link
        expected = self.gateways.expected_audio_rates
        named = [model for model in self._models if model.name]
        # A gateway of an earlier release names no model: its audio is for the only one.
        unnamed = expected.get("", 0.0) if len(named) == 1 else 0.0
        served = [
            model.state(expected_audio_rate=expected.get(model.name, 0.0) + unnamed)
            for model in named
        ]
        workers = [worker for model in self._models for worker in model.workers.taking]
        waits_ms = [model.est_wait_ms for model in self._models if model.takes_jobs or not workers]
        return m.Load(
            broker_epoch=self.epoch,
            queued_audio_ms=sum(model.queue.audio_ms for model in self._models),
            queued=sum(len(model.queue) for model in self._models),
            in_flight=sum(model.workers.held for model in self._models),
            failed_total=self._failed_total,
            workers=len(workers),
            workers_busy=sum(model.workers_busy for model in served),
            throughput_rtfx=sum(model.throughput_rtfx for model in served),
            est_wait_ms=max(waits_ms, default=0),
            models=tuple(sorted({worker.model for worker in workers})[: limit.MODELS_MAX]),
            arriving_audio_rate=sum(model.arrivals.per_s for model in self._models),
            expected_audio_rate=self.gateways.expected_audio_rate,
            gateways=len(self.gateways),
            workers_sent_rate=link.sent,
            workers_sent_peak_rate=link.sent_peak,
            workers_link_rate=0.0 if math.isinf(link.capacity) else link.capacity,
            served=tuple(sorted(served, key=attrgetter("name"))),
            subscribed=self._subscriptions.complete,
        )

    def worker_states(self) -> list[dict[str, Any]]:
        """Each registered worker, for the dashboard."""
        return [
            {
                "worker_id": worker.worker_id,
                "model": worker.served_name,
                "device": worker.device,
                "jobs": len(worker.held),
                "credits": worker.credits,
                "draining": worker.draining,
                "usage": None if worker.usage is None else asdict(worker.usage),
            }
            for worker in self._models.workers
        ]

    def _act(self, action: e.Action) -> None:
        self._actions.append(action)

    def _count(self, reason: str) -> None:
        self._actions.append(e.Count(reason))

    # ------------------------------------------------------------------------------------ sockets

    def _on_received(self, event: e.Received, now_s: float) -> None:
        handler = self._received[event.side].get(type(event.message))
        if event.side == "back" and self._unregistered.is_quarantined(event.identity):
            self._count("quarantined")
        elif handler is None:
            self._refuse_endpoint(event)
            self._on_fault(event.side, event.identity, "unexpected")
        else:
            handler(event.identity, event.message, now_s)

    def _refuse_endpoint(self, event: e.Received) -> None:
        """Answer a peer that is connected to the endpoint of others."""
        setting = _SETTING_OF.get(type(event.message))
        if setting is not None and self._models.worker(event.identity) is None:
            refused = replace(answers.REFUSED, setting=setting)
            self._act(e.Send(event.side, event.identity, refused))

    def _on_rejected(self, event: e.Rejected, _now_s: float) -> None:
        self._on_fault(event.side, event.identity, "malformed")

    def _on_fault(self, side: e.Side, identity: bytes, fault: str) -> None:
        if side == "back":
            self._on_protocol_error(identity, f"back_{fault}")
        else:
            self._count(f"front_{fault}")

    def _on_unsent(self, event: e.Unsent, _now_s: float) -> None:
        """A gateway that reconnects within its lease sends unanswered jobs again. A worker to which
        a job could not be sent has disconnected or stopped reading: it is unregistered until it
        registers again. The job has not reached it."""
        action = event.action
        if isinstance(action, e.Publish):
            self._count("subscriber_full")
            return
        message = action.message
        self._count(f"unsent_{type(message).__name__.lower()}")
        if isinstance(message, m.Mark):
            self._links.lost(action.identity)
        worker = self._models.worker(action.identity)
        if worker is not None and isinstance(message, m.WorkerJob):
            if message.job_id in worker.held:
                self.scheduler.take_returned(worker, [(message.job_id, message.attempt)])
            self.scheduler.lose(worker)
            self._count("worker_unreachable")

    # ---------------------------------------------------------------------- gateways, persistence

    def _on_hello(self, identity: bytes, hello: m.Hello, now_s: float) -> None:
        if hello.gateway_id.encode() != identity:
            self._count("identity_mismatch")
            return
        version = self._version_with(hello)
        if isinstance(version, m.Refused):
            self.gateways.refuse(identity)
            self._act(e.Send("front", identity, version))
            return
        self.gateways.admit(identity)
        welcome = m.Welcome(
            broker_epoch=self.epoch,
            version=version,
            hello=hello.number,
            received_ms=0 if self.is_late else round(now_s * 1000),
        )
        if self._renew_gateway(identity, now_s, welcome):
            self.gateways.expect(identity, hello)

    def _version_with(self, peer: m.Hello | m.Ready) -> int | m.Refused:
        """Return the protocol version to use with a peer, or the refusal to send."""
        if not versions.of_one_system(self._system_id, peer.system_id):
            self._count("system_refused")
            return replace(answers.REFUSED, system_id=self._system_id)
        version = versions.choose(peer.version_min, peer.version_max)
        if version is None:
            self._count("version_refused")
            return answers.REFUSED
        return version

    def _welcome(self, version: int = versions.VERSION_MIN) -> m.Welcome:
        return m.Welcome(broker_epoch=self.epoch, version=version)

    def _renew_gateway(
        self, identity: bytes, now_s: float, answer: m.Welcome | None = None
    ) -> bool:
        """Start or extend the lease of a gateway. Any message may start it: after a restart of the
        broker, gateways continue and have to learn the epoch. ``answer``: the answer to a HELLO.
        Returns False if the gateway cannot be served."""
        if self.gateways.is_refused(identity):
            self._count("refused_gateway")
            return False
        if identity not in self.gateways:
            if self.gateways.full:
                self._count("gateways_full")
                return False
            if not is_utf8(identity):
                self._count("identity_mismatch")
                return False
            answer = answer or self._welcome()
        if answer is not None:
            self._act(e.Send("front", identity, answer))
        self.gateways.renew(identity, now_s)
        return True

    def _on_job(self, identity: bytes, job: m.Job, now_s: float) -> None:
        if not self._renew_gateway(identity, now_s):
            return
        known = self._jobs.final(job.session_id, job.seq)
        if known is not None and known.job.generation != job.generation:
            if known.job.generation > job.generation:
                self._count("stale_generation")
                return
            # The session was taken over; its audio may have been cut into other segments since.
            self.scheduler.drop(known, "superseded_generation")
            known = None
        if job.partial:
            self._on_partial(identity, job, now_s, superseded=known is not None)
        elif known is not None:
            # Sent again, perhaps by another gateway on which the session was resumed.
            self._jobs.move(known, identity)
            self._count("duplicate_job")
        elif self.scheduler.accept(identity, job, now_s):
            for partial in self._jobs.partials(job.session_id):
                if timeline_key(partial.job) <= timeline_key(job):
                    self.scheduler.drop(partial, "partial_superseded")
        else:
            self._count("overloaded")
            self._act(e.Send("front", identity, job.result(error=answers.OVERLOADED)))

    def _on_partial(self, identity: bytes, job: m.Job, now_s: float, *, superseded: bool) -> None:
        """The newest partial job of a session replaces the waiting ones. A partial job may be
        dropped anywhere, counted and unanswered: the next one, or the final job, covers it."""
        partials = self._jobs.partials(job.session_id)
        if superseded or any(timeline_key(p.job) >= timeline_key(job) for p in partials):
            self._count("partial_late")
            return
        for partial in partials:
            if partial.location == "partial":
                self.scheduler.drop(partial, "partial_superseded")
        if not self.scheduler.accept(identity, job, now_s):
            self._count("partial_overloaded")

    def _on_cancel(self, identity: bytes, cancel: m.Cancel, now_s: float) -> None:
        # Any gateway may cancel: it need not be the one that runs the session.
        if self._renew_gateway(identity, now_s):
            for entry in self._jobs.of_session(cancel.session_id):
                self.scheduler.drop(entry, "cancelled")

    def _on_claim(self, identity: bytes, claim: m.Claim, now_s: float) -> None:
        if not self._renew_gateway(identity, now_s):
            return
        claimed = m.Claimed(**asdict(claim))
        for gateway in self.gateways:
            if gateway != identity:
                self._act(e.Send("front", gateway, claimed))

    def _on_record(self, identity: bytes, record: m.Record, now_s: float) -> None:
        if self._renew_gateway(identity, now_s):
            self._publish(
                m.PublishedRecord(
                    broker_epoch=self.epoch,
                    gateway_id=identity.decode(),
                    system_id=self._system_id,
                    record=record,
                )
            )

    def _on_stored(self, _identity: bytes, stored: m.Stored, _now_s: float) -> None:
        gateway = stored.gateway_id.encode()
        if not versions.of_one_system(self._system_id, stored.system_id):
            self._count("system_refused")
        elif gateway in self.gateways:
            self._act(e.Send("front", gateway, stored))
        else:
            self._count("stored_for_unknown_gateway")

    def _is_owned(self, entry: PendingJob) -> bool:
        return entry.gateway in self.gateways

    def _answer(self, entry: PendingJob, result: m.Result) -> None:
        if self._is_owned(entry):
            self._act(e.Send("front", entry.gateway, result))
        else:
            self._count("result_for_lost_gateway")
        if not result.partial:
            self._failed_total += result.error is not None
            outcome = "text" if result.error is None else result.error.code
            job = entry.job
            waited = result.queue_ms, job.session_id, job.seq, entry.received_s
            self._act(e.Answered(job.lane, outcome, *waited))
            stored = replace(result, embedding=b"") if result.embedding else result
            self._publish(
                m.PublishedResult(
                    broker_epoch=self.epoch,
                    gateway_id=entry.gateway.decode(),
                    system_id=self._system_id,
                    result=stored,
                )
            )

    # -------------------------------------------------------------------------------- publications

    def _publish(self, message: Publication) -> None:
        """Publish without keeping a copy: gateways send again what persistence does not confirm."""
        if self._subscriptions.wanted(message):
            self._act(e.Publish(message))
        else:
            self._count("no_subscriber")

    def _on_subscription(self, event: e.SubscriptionChanged, now_s: float) -> None:
        before = self._subscriptions.complete
        if not self._subscriptions.change(event.prefix, present=event.present):
            self._count("foreign_topic")
        elif self._subscriptions.complete != before:
            self._send_load(now_s)  # An interruption may be shorter than the interval.

    # ------------------------------------------------------------------------------------- workers

    def _on_protocol_error(self, identity: bytes, reason: str) -> None:
        """A message that no correct worker sends."""
        self._count(reason)
        worker = self._models.worker(identity)
        if worker is not None and self._models.pool(worker).add_protocol_error(worker):
            self._unregistered.quarantine(identity)
            self.scheduler.lose(worker)
            self._count("worker_quarantined")

    def _on_ready(self, identity: bytes, ready: m.Ready, now_s: float) -> None:
        if ready.worker_id.encode() != identity or ready.credits == 0:
            self._on_protocol_error(identity, "bad_ready")
            return
        version = self._version_with(ready)
        if isinstance(version, m.Refused):
            self._act(e.Send("back", identity, version))
            return
        worker = self._models.worker(identity)
        if worker is not None and ready.broker_epoch == self.epoch:
            self._on_new_connection(worker, ready, now_s)
            self._welcome_worker(ready, version, now_s)
            return
        if worker is not None:
            # It starts again and may have lost the jobs that it held.
            self.scheduler.lose(worker, is_back=True)
            self._count("worker_registered_again")
        if self._models.worker_count >= limit.WORKERS_MAX:
            self._count("workers_full")
        elif not self.scheduler.register(identity, ready, now_s):
            self._count("models_full")
        else:
            self._welcome_worker(ready, version, now_s)

    def _welcome_worker(self, ready: m.Ready, version: int, now_s: float) -> None:
        identity = ready.worker_id.encode()
        self._act(e.Send("back", identity, self._welcome(version)))
        self._links.connected(identity, answers_marks=ready.answers_marks, now_s=now_s)

    def _on_new_connection(self, worker: Worker, ready: m.Ready, now_s: float) -> None:
        """The worker continues, but jobs and results that were in transit are lost."""
        self._models.pool(worker).renew(worker, now_s)
        held = {(job.job_id, job.attempt) for job in ready.held}
        for entry in list(worker.held.values()):
            if (entry.job_id, entry.attempt) not in held:
                self.scheduler.lose_in_transit(worker, entry)
        self._count("worker_reconnected")

    def _known_worker(self, identity: bytes, now_s: float) -> Worker | None:
        """The worker, with its lease extended; or None, after a ``Welcome`` if one is due."""
        worker = self._models.worker(identity)
        if worker is None:
            self._count("unknown_worker")
            if self._unregistered.take_welcome(identity, now_s):
                self._act(e.Send("back", identity, self._welcome()))
        else:
            self._models.pool(worker).renew(worker, now_s)
        return worker

    def _on_heartbeat(self, identity: bytes, heartbeat: m.Heartbeat, now_s: float) -> None:
        worker = self._known_worker(identity, now_s)
        if worker is None:
            return
        pool = self._models.pool(worker)
        if heartbeat.usage is not None:
            pool.note_usage(worker, heartbeat.usage)
        if heartbeat.credits:
            pool.grant(worker, heartbeat.credits, heartbeat.streamed_credits)
        if worker.overdue:
            # An attempt taken away before the current batch began does not block the worker.
            began_s = now_s - heartbeat.busy_ms / 1000
            past = [attempt for attempt, since_s in worker.overdue.items() if since_s < began_s]
            pool.forget_overdue(worker, past)

    def _on_worker_result(self, identity: bytes, answer: m.WorkerResult, now_s: float) -> None:
        worker = self._known_worker(identity, now_s)
        if worker is None:
            return
        attempt = (answer.job_id, answer.attempt)
        if answer.broker_epoch != self.epoch:
            self._count("stale_result")
        elif self.scheduler.complete(worker, answer, now_s):
            self._unregister_if_drained(worker)
        elif attempt in worker.past:
            self._count("stale_result")
            self._models.pool(worker).forget_overdue(worker, [attempt])
        else:
            self._on_protocol_error(identity, "unheld_result")

    def _on_mark_arrived(self, identity: bytes, mark: m.MarkArrived, now_s: float) -> None:
        # It does not renew the worker's lease: a worker whose inference hangs answers, too.
        if self._models.worker(identity) is None:
            self._count("unknown_worker")
        else:
            self._links.arrived(mark, now_s, late=self.is_late)

    def _on_bye(self, identity: bytes, bye: m.Bye, now_s: float) -> None:
        worker = self._models.worker(identity)
        if worker is None:
            self._count("unknown_worker")
            return
        self._models.pool(worker).renew(worker, now_s)
        self._models.pool(worker).drain(worker)
        if bye.broker_epoch == self.epoch:
            returned = [(job.job_id, job.attempt) for job in bye.returned]
            self.scheduler.take_returned(worker, returned)
        self._unregister_if_drained(worker)

    def _unregister_if_drained(self, worker: Worker) -> None:
        if worker.draining and not worker.held:
            self.scheduler.lose(worker)

    # ---------------------------------------------------------------------------------------- time

    def _on_tick(self, _event: e.Tick, now_s: float) -> None:
        self._extend_leases_after_pause(now_s)
        self._links.turn(now_s)
        self._link = self._links.use(now_s)
        for model in list(self._models):  # One may be opened for the jobs of a lost worker.
            model.advance(now_s)
            for worker in model.workers.expired(self._lease_s, now_s):
                self._act(e.LeaseEnded(worker.identity, len(worker.held)))
                self.scheduler.lose(worker)
                self._count("worker_lease_ended")
        self._models.forget_unused(now_s)
        for gateway in self.gateways.expire(now_s):
            self._count("gateway_lease_ended")
            entries = self._jobs.of_gateway(gateway)
            self._act(e.LeaseEnded(gateway, len(entries)))
            for entry in entries:
                # Assigned jobs continue, for persistence and for a gateway that resumes the session
                # and sends the job again.
                if entry.location != "assigned":
                    self.scheduler.drop(entry, "gateway_lost")
        self.scheduler.expire(now_s)
        if now_s >= self._load_due_s:
            self._send_load(now_s)

    def _send_load(self, now_s: float) -> None:
        self._load_due_s = now_s + limit.LOAD_INTERVAL_S
        load = self.load()
        for gateway in self.gateways:
            self._act(e.Send("front", gateway, load))

    def _extend_leases_after_pause(self, now_s: float) -> None:
        """While the broker was stopped it received nothing, so that no lease may end for it."""
        pause_s = 0.0 if self._ticked_s is None else now_s - self._ticked_s
        self._ticked_s = now_s
        if pause_s > limit.PAUSE_S:
            self.gateways.extend(pause_s, now_s)
            for model in self._models:
                model.workers.extend(pause_s, now_s)
