"""The broker's loop: poll, drain what has arrived up to a cap, feed the core, perform its actions.

One thread owns the three sockets. It never waits but in the poll: every send is DONTWAIT, and what
a socket refuses is told to the core.
"""

from __future__ import annotations

import errno
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType

import structlog
import zmq

from broker import endless, metrics
from broker.events import (
    Action,
    Answered,
    BackReceived,
    BackRejected,
    BackUnsent,
    Count,
    Event,
    FrontReceived,
    FrontRejected,
    FrontUnsent,
    Publish,
    SendBack,
    SendFront,
    SubscriptionChanged,
    Tick,
    Unpublished,
)
from broker.queue_counters import QueueCounters
from broker.routing import Broker
from broker.settings import BrokerSettings
from broker.zap_auth import ZapAuthenticator
from runtime import exit_codes, lifecycle, memory, settings, tracing
from wire import codec, publication, sockets
from wire.messages import Load, Message

TICK_S = 0.05
DRAIN_MESSAGES_MAX = 500
"""Messages taken from one socket before the others, and time, get their turn."""
BURST_ACTIONS_MAX = 128
"""Actions performed together. A send to an I/O thread that sleeps wakes it, which costs more than
all else that is done for a message; of sends in a row only the first one does."""
SHOW_EVERY_S = 1.0
"""Metrics, Redis counters, and one log line with what was counted."""

Socket = zmq.Socket[bytes]
NOW = int(zmq.DONTWAIT)
NOW_AND_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
SEND = zmq.backend.Socket.send
"""The C function. ``zmq.Socket.send`` wraps it in Python for options that we don't use, and
``send_multipart`` wraps that: 4.4 and 3.1 against 1.7 µs for a message of four frames."""
REFUSALS = frozenset({zmq.EAGAIN, zmq.EHOSTUNREACH})
"""A full peer, and one that is not there."""


class Service:
    """Use as a context manager; ``run`` until told to stop."""

    def __init__(self, values: BrokerSettings, core: Broker, counters: QueueCounters) -> None:
        """Binds.

        Raises:
            SystemExit: with one line for the operator, if an endpoint can't be bound.
        """
        self._core = core
        self._counters = counters
        self._log = structlog.get_logger()
        self._context: zmq.Context[Socket] = zmq.Context()
        self._bound: list[Socket] = []
        self._keys = values.server_keys()
        self._zap = ZapAuthenticator(self._context, self._keys) if self._keys else None
        bind = self._bind
        self._front = bind("BROKER_FRONTEND", values.broker_frontend, sockets.bind_router, "front")
        self._back = bind("BROKER_BACKEND", values.broker_backend, sockets.bind_router, "back")
        self._events = bind("BROKER_EVENTS", values.broker_events, sockets.bind_xpub, "events")
        self._poller = zmq.Poller()
        for socket in self._bound:
            self._poller.register(socket, zmq.POLLIN)
        self._sequence = 0
        self._incidents: Counter[str] = Counter()
        self._workers = 0
        self._tick_due_s = 0.0
        self._show_due_s = 0.0
        self._sweeper = memory.Sweeper()
        self._endless = endless.EndlessMessages()
        self._ports = frozenset(port for s in self._bound if (port := sockets.tcp_port(s)))
        self._endless_due_s = 0.0
        self._all_taken = True
        """Nothing waited in the sockets when this turn's messages were taken."""

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for socket in self._bound:
            socket.close(linger=0)
        if self._zap is not None:
            self._zap.close()
        self._context.term()

    def run(self, stop: lifecycle.StopSignal) -> None:
        self._log.info("broker_ready", epoch=self._core.epoch)
        while not stop.requested:
            self.turn()
        self._log.info("broker_ended")

    def turn(self) -> None:
        """Wait for messages or the next tick, and handle what there is, up to the cap."""
        wait_s = max(0.0, self._tick_due_s - time.monotonic())
        ready = dict(self._poller.poll(math.ceil(wait_s * 1000)))
        self._all_taken = True
        # Workers first: their results make room for the jobs that gateways send.
        if self._back in ready:
            self._drain_peers(self._back, "back", BackReceived, BackRejected)
        if self._front in ready:
            self._drain_peers(self._front, "front", FrontReceived, FrontRejected)
        if self._events in ready:
            self._drain_subscriptions()
        now_s = time.monotonic()
        if now_s >= self._endless_due_s and self._all_taken:
            self._cut_endless(now_s)
        if now_s >= self._tick_due_s:
            self._tick_due_s = now_s + TICK_S
            self._handle(Tick(), now_s)
            if now_s >= self._show_due_s:
                self._show_due_s = now_s + SHOW_EVERY_S
                self._show(self._core.load())
                self._sweeper.turn(now_s)

    def _bind(
        self,
        name: str,
        endpoint: str,
        make: Callable[[zmq.Context[Socket], str, sockets.Access | None], Socket],
        domain: str,
    ) -> Socket:
        access = sockets.Access(self._keys, domain) if self._keys else None
        try:
            socket = make(self._context, endpoint, access)
        except zmq.ZMQError as error:
            self.close()
            taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
            code = exit_codes.UNAVAILABLE if taken else exit_codes.CONFIG
            why = zmq.strerror(error.errno or 0)
            settings.fail(f"{name}: cannot bind {endpoint}: {why}", code)
        self._bound.append(socket)
        return socket

    # ----------------------------------------------------------------------------------- receiving

    def _drain_peers(
        self,
        socket: Socket,
        name: str,
        received: Callable[[bytes, Message], Event],
        rejected: Callable[[bytes], Event],
    ) -> None:
        count = 0
        now_s = time.monotonic()
        actions: list[Action] = []
        for frames in self._received(socket):
            count += 1
            try:
                event = received(frames[0], codec.decode(frames[1:]))
            except codec.WireError as error:
                self._log.debug("malformed_frames", socket=name, error=str(error))
                event = rejected(frames[0])
            actions += self._core.handle(event, now_s)
            if len(actions) >= BURST_ACTIONS_MAX:
                self._perform(actions, now_s)
                actions = []
        self._perform(actions, now_s)
        metrics.RECEIVED.labels(name).inc(count)

    def _drain_subscriptions(self) -> None:
        now_s = time.monotonic()
        for frames in self._received(self._events):
            # ZMTP: one frame, 1 for subscribe or 0 for unsubscribe, then the topic's prefix.
            if len(frames) == 1 and frames[0][:1] in (b"\0", b"\1"):
                present = frames[0][0] == 1
                self._handle(SubscriptionChanged(frames[0][1:], present), now_s)
            else:
                self._incidents["events_malformed"] += 1

    def _received(self, socket: Socket) -> Iterable[list[bytes]]:
        """What has arrived, up to the cap."""
        for _ in range(DRAIN_MESSAGES_MAX):
            try:
                frame = socket.recv(NOW, copy=False)
            except zmq.Again:
                return
            # What recv_multipart does, without asking the socket whether there is more.
            frames = [frame.bytes]
            while frame.more:
                frame = socket.recv(NOW, copy=False)
                frames.append(frame.bytes)
            if self._endless.suspicious:
                self._endless.heard(sockets.descriptor_of(frame))
            yield frames
        self._all_taken = False

    def _cut_endless(self, now_s: float) -> None:
        arrived = endless.connections(self._ports)
        for connection in self._endless.look(arrived):
            self._incidents["endless_message"] += 1
            self._log.warning("endless_message", peer=connection[1], bytes=arrived[connection])
            endless.cut(connection)
        took_s = time.monotonic() - now_s
        self._endless_due_s = now_s + max(endless.LOOK_EVERY_S, took_s / endless.LOOK_SHARE_MAX)

    # ----------------------------------------------------------------------------------- performing

    def _handle(self, event: Event, now_s: float) -> None:
        self._perform(self._core.handle(event, now_s), now_s)

    def _perform(self, actions: Iterable[Action], now_s: float) -> None:
        """Also what follows when a socket refuses something."""
        while actions:
            refused = self._try(actions)
            actions = [action for event in refused for action in self._core.handle(event, now_s)]

    def _try(self, actions: Iterable[Action]) -> list[Event]:
        """Returns what the sockets refused, as events for the core."""
        refused: list[Event] = []
        for action in actions:
            match action:
                case SendBack(identity, message):
                    if not self._send(self._back, [identity, *codec.encode(message)]):
                        refused.append(BackUnsent(identity, message))
                case SendFront(identity, message):
                    if not self._send(self._front, [identity, *codec.encode(message)]):
                        refused.append(FrontUnsent(identity, message))
                case Publish(message):
                    if not self._publish(message):
                        refused.append(Unpublished(message))
                case Count(reason):
                    self._incidents[reason] += 1
                case Answered():
                    metrics.count_answer(action)
                    if tracing.on():
                        _trace(action)
        return refused

    def _publish(self, message: publication.Publication) -> bool:
        # A refused publication uses up its number: the subscriber is to notice that one is missing.
        self._sequence += 1
        sent = self._send(self._events, publication.encode(self._sequence, message))
        metrics.PUBLISHED.inc(sent)
        return sent

    def _send(self, socket: Socket, frames: list[bytes]) -> bool:
        try:
            # Only the first frame can be refused, and then nothing of the message was sent.
            last = frames.pop()
            for frame in frames:
                SEND(socket, frame, NOW_AND_MORE)
            SEND(socket, last, NOW)
        except zmq.ZMQError as error:
            if error.errno not in REFUSALS:
                raise
            return False
        return True

    def _show(self, load: Load) -> None:
        metrics.show(load)
        self._counters.show(load)
        for reason, count in self._incidents.items():
            metrics.INCIDENTS.labels(reason).inc(count)
        if self._incidents:
            self._log.info("incidents", counts=dict(self._incidents))
            self._incidents.clear()
        if load.workers != self._workers:
            self._log.info("workers_changed", workers=load.workers, before=self._workers)
            self._workers = load.workers


def _trace(answered: Answered) -> None:
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
