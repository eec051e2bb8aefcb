"""The broker's loop: poll, receive up to a limit, pass messages to the core, perform its actions.

One thread owns the three sockets. It waits only in the poll: every send uses DONTWAIT, and a
refused send is passed to the core as an event.
"""

from __future__ import annotations

import errno
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import structlog
import zmq

from broker import events as e
from broker import metrics
from broker.handshakes import Handshakes
from broker.queue_counters import QueueCounters
from broker.routing import Broker
from broker.settings import BrokerSettings
from broker.zap_auth import ZapAuth
from runtime import exit_codes, lifecycle, memory, settings, tracing
from runtime.process_report import ProcessReport
from wire import codec, publication, sockets
from wire.keys import KeyFiles
from wire.messages import Load
from wire.sockets import Context, Socket

TICK_S = 0.05
DRAIN_MESSAGES_MAX = 500
"""Messages received from one socket in a turn."""
BURST_ACTIONS_MAX = 128
"""Actions performed in a row. A send to a sleeping I/O thread wakes it, which costs more than all
other work for a message; in a row only the first send does."""
KEYS_CHECK_S = 0.25
"""Interval of checks for changed keys on disk."""
REBIND_S_MAX = 2.0
"""Limit on the time that libzmq takes to close a socket, whose endpoint is then bound again."""
REBIND_RETRY_S = 0.01
REPORT_INTERVAL_S = 1.0
"""Interval of metrics and Redis counters."""
INCIDENTS_INTERVAL_S = 60.0
"""Interval of the log event ``incidents`` for the same reason. The first one is logged at once."""

Bind = Callable[[Context, str, sockets.Access | None], Socket]
SOCKETS: Final[dict[str, tuple[str, Bind]]] = {
    "front": ("broker_frontend", sockets.bind_router),
    "back": ("broker_backend", sockets.bind_router),
    "events": ("broker_events", sockets.bind_xpub),
}
"""By name, which is also the ZAP domain: the setting of the endpoint, and the kind."""


class Service:
    """Use as a context manager, and call ``run``."""

    def __init__(
        self, values: BrokerSettings, core: Broker, counters: QueueCounters, report: ProcessReport
    ) -> None:
        """Binds the three sockets.

        Raises:
            SystemExit: if an endpoint cannot be bound, with one line on standard error.
        """
        self._core = core
        self._counters = counters
        self._process_report = report
        self._log = structlog.get_logger()
        self._context: Context = zmq.Context()
        self._sockets: dict[str, Socket] = {}
        self._handshakes = Handshakes()
        self._values = values
        self._key_files = values.bus_keys("broker")
        self._keys = self._key_files.keys if self._key_files else None
        self._zap_auth = ZapAuth(self._context, self._keys) if self._keys else None
        self._warn_of_missing_keys()
        self._poller = zmq.Poller()
        self._bind_all()
        self._keys_due_s = 0.0
        self._sequence = 0
        self._incidents: Counter[str] = Counter()
        self._unlogged: Counter[str] = Counter()
        self._quiet_until_s: dict[str, float] = {}
        """By reason."""
        self._debugs = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
        self._workers = 0
        self._polled_s = time.monotonic()
        self._tick_due_s = 0.0
        self._report_due_s = 0.0
        self._sweeper = memory.Sweeper()
        self._late_until_s = 0.0

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._handshakes.forget()
        for socket in self._sockets.values():
            socket.close(linger=0)
        if self._zap_auth is not None:
            self._zap_auth.stop()
        self._context.term()

    def run(self, stop: lifecycle.StopSignal) -> None:
        self._log.info("broker_ready", epoch=self._core.epoch)
        while not stop.requested:
            self.turn()
        self._log.info("broker_stopped")

    def turn(self) -> None:
        """Wait for messages or the next tick, and process the messages up to the limit."""
        wait_s = max(0.0, self._tick_due_s - time.monotonic())
        ready = dict(self._poller.poll(math.ceil(wait_s * 1000)))
        # Messages may have arrived at any time since the last poll. If that was unusually long ago,
        # the process was not running, and their time of arrival is unknown. ZMQ's thread, which was
        # not running either, may deliver them a moment later.
        before_s, self._polled_s = self._polled_s, time.monotonic()
        if self._polled_s - before_s > 2 * TICK_S:
            self._late_until_s = self._polled_s + TICK_S
        self._core.is_late = self._polled_s < self._late_until_s
        # Workers first: their results free credits for the jobs of gateways.
        sides: tuple[e.Side, ...] = ("back", "front")
        for side in sides:
            if self._sockets[side] in ready:
                self._drain_peers(side)
        if self._sockets["events"] in ready:
            self._drain_subscriptions()
        now_s = time.monotonic()
        if self._key_files is not None and now_s >= self._keys_due_s:
            self._keys_due_s = now_s + KEYS_CHECK_S
            self._follow_keys(self._key_files, now_s)
        if now_s >= self._tick_due_s:
            self._tick_due_s = now_s + TICK_S
            self._handle(e.Tick(), now_s)
            if now_s >= self._report_due_s:
                self._report_due_s = now_s + REPORT_INTERVAL_S
                self._handshakes.turn(now_s)
                self._report(self._core.load())
                self._sweeper.turn(now_s)

    # ---------------------------------------------------------------------------------------- keys

    def _follow_keys(self, files: KeyFiles, now_s: float) -> None:
        """Allow the keys that are on disk now. If one is gone, or the broker has another one, bind
        the sockets anew: ZMQ cannot end a single connection. Peers with allowed keys are back
        within a second or two, and gateways send unanswered jobs again."""
        before, self._keys = self._keys, files.read_again()
        if before is self._keys or before is None or self._zap_auth is None:
            return
        if files.error is not None:
            self._log.error("bus_keys_unusable", error=str(files.error))
        self._zap_auth.allow(self._keys)
        removed = sum(len(keys - self._keys.allowed[role]) for role, keys in before.allowed.items())
        added = sum(len(keys - before.allowed[role]) for role, keys in self._keys.allowed.items())
        own = before.secret != self._keys.secret
        self._log.info("bus_keys_changed", added=added, removed=removed, own=own)
        self._warn_of_missing_keys()
        if removed or own:
            self._unbind_all()
            for topic in publication.TOPICS:
                self._handle(e.SubscriptionChanged(topic, False), now_s)
            self._bind_all(time.monotonic() + REBIND_S_MAX)

    def _warn_of_missing_keys(self) -> None:
        allowed = self._keys.allowed if self._keys else {}
        missing = [role for role, keys in allowed.items() if not keys]
        if missing:
            self._log.warning("bus_roles_without_keys", roles=missing)

    # ------------------------------------------------------------------------------------- binding

    def _bind_all(self, until_s: float = 0.0) -> None:
        """Bind the three sockets. An endpoint that is in use is tried again until ``until_s``."""
        for name in SOCKETS:
            socket = self._sockets[name] = self._bind(name, until_s)
            self._poller.register(socket, zmq.POLLIN)
            self._handshakes.watch(name, socket)

    def _unbind_all(self) -> None:
        self._handshakes.forget()
        for socket in self._sockets.values():
            self._poller.unregister(socket)
            sockets.unbind(socket)
        self._sockets.clear()

    def _bind(self, name: str, until_s: float) -> Socket:
        setting, make = SOCKETS[name]
        endpoint: str = getattr(self._values, setting)
        access = sockets.Access(self._keys, name) if self._keys else None
        while True:
            try:
                return make(self._context, endpoint, access)
            except zmq.ZMQError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= until_s:
                    self.close()
                    _fail_to_bind(setting.upper(), endpoint, error.errno or 0)
                time.sleep(REBIND_RETRY_S)

    # ----------------------------------------------------------------------------------- receiving

    def _drain_peers(self, side: e.Side) -> None:
        count = 0
        now_s = time.monotonic()
        actions: list[e.Action] = []
        for frames in sockets.received(self._sockets[side], DRAIN_MESSAGES_MAX):
            count += 1
            try:
                event: e.Event = e.Received(side, frames[0], codec.decode(frames[1:]))
            except codec.WireError as error:
                self._log.debug("malformed_frames", socket=side, error=str(error))
                event = e.Rejected(side, frames[0])
            actions += self._core.handle(event, now_s)
            if len(actions) >= BURST_ACTIONS_MAX:
                self._perform(actions, now_s)
                actions = []
        self._perform(actions, now_s)
        metrics.RECEIVED.labels(side).inc(count)

    def _drain_subscriptions(self) -> None:
        now_s = time.monotonic()
        for frames in sockets.received(self._sockets["events"], DRAIN_MESSAGES_MAX):
            # ZMTP: one frame of 1 (subscribe) or 0 (unsubscribe) and the prefix of the topic.
            if len(frames) == 1 and frames[0][:1] in (b"\0", b"\1"):
                present = frames[0][0] == 1
                self._handle(e.SubscriptionChanged(frames[0][1:], present), now_s)
            else:
                self._incidents["events_malformed"] += 1

    # ----------------------------------------------------------------------------------- performing

    def _handle(self, event: e.Event, now_s: float) -> None:
        self._perform(self._core.handle(event, now_s), now_s)

    def _perform(self, actions: Iterable[e.Action], now_s: float) -> None:
        """Perform actions, and further ones that follow from refused sends."""
        while actions:
            refused = self._try(actions)
            actions = [action for event in refused for action in self._core.handle(event, now_s)]

    def _try(self, actions: Iterable[e.Action]) -> list[e.Event]:
        """Perform actions. Returns refused sends as events for the core."""
        refused: list[e.Event] = []
        for action in actions:
            match action:
                case e.Send(side, identity, message):
                    frames = [identity, *codec.encode(message)]
                    if not sockets.send(self._sockets[side], frames):
                        refused.append(e.Unsent(action))
                case e.Publish(message):
                    if not self._publish(message):
                        refused.append(e.Unsent(action))
                case e.Count(reason):
                    self._incidents[reason] += 1
                case e.LeaseEnded(identity, jobs):
                    name = identity.decode(errors="replace")
                    self._log.warning("lease_ended", peer=name, jobs=jobs)
                case e.Answered():
                    metrics.count_answer(action)
                    self._log_and_trace(action)
        return refused

    def _log_and_trace(self, answered: e.Answered) -> None:
        failed = answered.outcome != "text"
        if failed or self._debugs:
            (self._log.warning if failed else self._log.debug)(
                "job_failed" if failed else "job_answered",
                session_id=answered.session_id,
                segment_index=answered.seq,
                outcome=answered.outcome,
                queue_ms=answered.queue_ms,
            )
        if tracing.on():
            end_s = answered.received_s + answered.queue_ms / 1000
            by_a_worker = answered.outcome in metrics.BY_A_WORKER
            tracing.record(
                "queue",
                answered.session_id,
                answered.seq,
                start_s=answered.received_s,
                end_s=end_s if by_a_worker else time.monotonic(),
                error=None if by_a_worker else answered.outcome,
                lane=answered.lane,
            )

    def _publish(self, message: publication.Publication) -> bool:
        # A refused publication uses a number, so that subscribers notice that it is missing.
        self._sequence += 1
        frames = publication.encode(self._sequence, message)
        sent = sockets.send(self._sockets["events"], frames)
        metrics.PUBLISHED.inc(sent)
        return sent

    def _report(self, load: Load) -> None:
        metrics.set_gauges(load)
        self._counters.update(load)
        self._process_report.details = {"workers": self._core.worker_states()}
        for reason, count in self._incidents.items():
            metrics.INCIDENTS.labels(reason).inc(count)
            if reason not in metrics.USUAL:
                self._unlogged[reason] += count
        self._incidents.clear()
        self._log_incidents(time.monotonic())
        if load.workers != self._workers:
            self._log.info("workers_changed", workers=load.workers, before=self._workers)
            self._workers = load.workers

    def _log_incidents(self, now_s: float) -> None:
        """A peer with a wrong setting may cause the same ones for days."""
        if all(now_s < self._quiet_until_s.get(reason, 0.0) for reason in self._unlogged):
            return
        self._log.info("incidents", counts=dict(self._unlogged))
        self._quiet_until_s |= dict.fromkeys(self._unlogged, now_s + INCIDENTS_INTERVAL_S)
        self._unlogged.clear()


def _fail_to_bind(setting: str, endpoint: str, number: int) -> NoReturn:
    why, code = zmq.strerror(number), exit_codes.CONFIG
    if number in (errno.EADDRINUSE, errno.EACCES):
        other = "DATA_DIR" if endpoint.startswith("ipc:") else f"{setting}, for its peers too"
        why += f"; stop the other broker, or set another {other}"
        code = exit_codes.UNAVAILABLE
    elif number == errno.ENODEV:
        # libzmq's text for a name that is no interface and has no address is "No such device".
        why = "no such address; a broker binds an address or an interface of its host"
    settings.fail(f"{setting}: cannot bind {endpoint}: {why}", code)
