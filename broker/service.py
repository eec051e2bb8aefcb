"""The broker's loop: poll, receive up to a limit, pass messages to the core, perform its actions.

One thread owns the three sockets. It waits only in the poll: every send uses DONTWAIT, and a
refused send is passed to the core as an event.
"""

from __future__ import annotations

import errno
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable

import structlog
import zmq

from broker import metrics, zap_auth
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
from runtime import exit_codes, lifecycle, memory, settings, tracing
from wire import codec, publication, sockets
from wire.messages import Load, Message
from wire.sockets import Context, Socket

TICK_S = 0.05
DRAIN_MESSAGES_MAX = 500
"""Messages received from one socket in a turn."""
BURST_ACTIONS_MAX = 128
"""Actions performed in a row. A send to a sleeping I/O thread wakes it, which costs more than all
other work for a message; in a row only the first send does."""
REPORT_INTERVAL_S = 1.0
"""Interval of metrics, Redis counters and the log event ``incidents``."""

NOW = int(zmq.DONTWAIT)
NOW_AND_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
SEND = zmq.backend.Socket.send
"""The C function. For a message of four frames it takes 1.7 µs, ``zmq.Socket.send`` 3.1 µs and
``send_multipart`` 4.4 µs, for options that are not used here."""
REFUSALS = frozenset({zmq.EAGAIN, zmq.EHOSTUNREACH})
"""The queue of the peer is full; the peer is unknown."""


class Service:
    """Use as a context manager, and call ``run``."""

    def __init__(self, values: BrokerSettings, core: Broker, counters: QueueCounters) -> None:
        """Binds the three sockets.

        Raises:
            SystemExit: if an endpoint cannot be bound, with one line on standard error.
        """
        self._core = core
        self._counters = counters
        self._log = structlog.get_logger()
        self._context: Context = zmq.Context()
        self._bound: list[Socket] = []
        self._keys = values.bus_keys("broker")
        self._zap = zap_auth.start(self._context, self._keys) if self._keys else None
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
        self._report_due_s = 0.0
        self._sweeper = memory.Sweeper()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        for socket in self._bound:
            socket.close(linger=0)
        if self._zap is not None:
            self._zap.stop()
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
        # Workers first: their results free credits for the jobs of gateways.
        if self._back in ready:
            self._drain_peers(self._back, "back", BackReceived, BackRejected)
        if self._front in ready:
            self._drain_peers(self._front, "front", FrontReceived, FrontRejected)
        if self._events in ready:
            self._drain_subscriptions()
        now_s = time.monotonic()
        if now_s >= self._tick_due_s:
            self._tick_due_s = now_s + TICK_S
            self._handle(Tick(), now_s)
            if now_s >= self._report_due_s:
                self._report_due_s = now_s + REPORT_INTERVAL_S
                self._report(self._core.load())
                self._sweeper.turn(now_s)

    def _bind(
        self,
        name: str,
        endpoint: str,
        make: Callable[[Context, str, sockets.Access | None], Socket],
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
            # ZMTP: one frame of 1 (subscribe) or 0 (unsubscribe) and the prefix of the topic.
            if len(frames) == 1 and frames[0][:1] in (b"\0", b"\1"):
                present = frames[0][0] == 1
                self._handle(SubscriptionChanged(frames[0][1:], present), now_s)
            else:
                self._incidents["events_malformed"] += 1

    def _received(self, socket: Socket) -> Iterable[list[bytes]]:
        """The messages that have arrived, up to the limit."""
        for _ in range(DRAIN_MESSAGES_MAX):
            try:
                frame = socket.recv(NOW, copy=False)
            except zmq.Again:
                return
            # As recv_multipart, without a getsockopt call per frame.
            frames = [frame.bytes]
            while frame.more:
                frame = socket.recv(NOW, copy=False)
                frames.append(frame.bytes)
            yield frames

    # ----------------------------------------------------------------------------------- performing

    def _handle(self, event: Event, now_s: float) -> None:
        self._perform(self._core.handle(event, now_s), now_s)

    def _perform(self, actions: Iterable[Action], now_s: float) -> None:
        """Perform actions, and further ones that follow from refused sends."""
        while actions:
            refused = self._try(actions)
            actions = [action for event in refused for action in self._core.handle(event, now_s)]

    def _try(self, actions: Iterable[Action]) -> list[Event]:
        """Perform actions. Returns refused sends as events for the core."""
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
        # A refused publication uses a number, so that subscribers notice that it is missing.
        self._sequence += 1
        sent = self._send(self._events, publication.encode(self._sequence, message))
        metrics.PUBLISHED.inc(sent)
        return sent

    def _send(self, socket: Socket, frames: list[bytes]) -> bool:
        try:
            # Only the first frame can be refused; then no part of the message was sent.
            last = frames.pop()
            for frame in frames:
                SEND(socket, frame, NOW_AND_MORE)
            SEND(socket, last, NOW)
        except zmq.ZMQError as error:
            if error.errno not in REFUSALS:
                raise
            return False
        return True

    def _report(self, load: Load) -> None:
        metrics.set_gauges(load)
        self._counters.update(load)
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
