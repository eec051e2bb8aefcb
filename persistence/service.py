"""Adapter: publications from the broker to the batch buffer, batches to the writer, confirmations
to the broker."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog
import zmq

from persistence import metrics
from persistence.batch_buffer import Batch, BatchBuffer, Entry, routes_of
from persistence.settings import PersistenceSettings
from persistence.writer import Writer
from runtime import lifecycle, memory, tracing
from runtime.bus_link import Links
from wire import codec, publication, sockets, versions
from wire.messages import Refused, Stored
from wire.records import SegmentCopy, SessionDeleted, SessionFinished

POLL_S_MAX = 0.1
"""Longest delay until a SIGTERM is noticed."""
RECEIVE_PER_TURN_MAX = 2_000
"""Publications received before the writer gets its turn."""
DRAIN_S_MAX = lifecycle.DRAIN_S - 0.8
DRAIN_QUIET_S = 0.5
"""Draining ends when nothing has been waiting and nothing has arrived for this long: gateways that
stop at the same time have then sent their last records."""
WRITER_STOP_S = 0.3

_log = structlog.get_logger()


class Service:
    """Use as a context manager, on one thread, and call ``run``. It subscribes to every broker.

    Raises:
        zmq.ZMQError: if an endpoint is malformed.
    """

    def __init__(self, settings: PersistenceSettings) -> None:
        limits = settings.limits()
        metrics.BACKLOG_ROWS_MAX.set(limits.pending_rows_max)
        self._buffer = BatchBuffer(limits, settings.system_id)
        self._writer = Writer(
            settings.database_address(),
            write_timeout_s=settings.persistence_write_timeout_s,
            lost_after_s=settings.session_lost_s,
            retention_days=settings.retention_days,
        )
        self._context: sockets.Context = zmq.Context()
        self._poller = zmq.Poller()
        bus_keys = settings.bus_keys("persistence")
        identity = sockets.new_identity("persistence")

        def links(listed: str, connect: Callable[..., sockets.Socket], own: Any) -> Links:
            """``own``: the argument of ``connect`` between the endpoint and the keys."""
            return Links(
                listed,
                lambda endpoint, keys, events: connect(
                    self._context, endpoint, own, keys, events=events
                ),
                bus_keys,
                self._poller,
                time.monotonic(),
            )

        try:
            self._events = links(settings.broker_events, sockets.connect_sub, publication.TOPICS)
            self._brokers = links(settings.broker_frontend, sockets.connect_dealer, identity)
        except zmq.ZMQError:
            self._context.destroy(linger=0)
            raise
        self._poller.register(self._writer.wake.fileno(), zmq.POLLIN)
        self._last_received_s = 0.0
        self._system_id = settings.system_id
        self._refused: Refused | None = None
        self._sweeper = memory.Sweeper()

    def __enter__(self) -> Service:
        self._writer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        # An unavailable database must not delay the end of the process.
        self._writer.stop(WRITER_STOP_S)
        self._events.close()
        self._brokers.close(linger_ms=int(WRITER_STOP_S * 1_000))
        self._context.term()

    def run(self, stop: lifecycle.StopSignal) -> None:
        """Run until ``stop`` is requested, then drain: until everything is written, at most for
        ``DRAIN_S_MAX``."""
        _log.info("persistence_ready")
        while not stop.requested:
            self._turn(draining=False)
        began_s = time.monotonic()
        while time.monotonic() - began_s < DRAIN_S_MAX:
            self._turn(draining=True)
            quiet_since_s = max(began_s, self._last_received_s)
            if not self._buffer.rows and time.monotonic() - quiet_since_s >= DRAIN_QUIET_S:
                break
        _log.info("persistence_stopped", rows_left=self._buffer.rows)

    def _turn(self, *, draining: bool) -> None:
        assert self._writer.alive, "the writer's thread has ended; its traceback is above"
        self._poller.poll(math.ceil(self._poll_s() * 1_000))
        for links in (self._events, self._brokers):
            links.turn(time.monotonic())
        self._receive()
        written = self._writer.committed()
        if written is not None:
            batch, superseded = written
            for broker, stored in self._buffer.committed(batch, superseded):
                self._send(broker, stored)
            now_s = time.monotonic()
            _log_ends(batch, superseded)
            for entry in batch:
                metrics.STORE_SECONDS.observe(now_s - entry.received_s)
                if tracing.on() and isinstance(entry.body, SegmentCopy):
                    segment, began_s = (entry.session_id, entry.body.seq), entry.received_s
                    tracing.record("store", *segment, start_s=began_s, end_s=now_s)
        if self._writer.idle:
            next_batch = self._buffer.take_batch(time.monotonic(), draining=draining)
            if next_batch is not None:
                self._writer.submit(next_batch)
        metrics.BACKLOG_ROWS.set(self._buffer.rows)
        metrics.BACKLOG_BYTES.set(self._buffer.bytes)
        self._sweeper.turn(time.monotonic())

    def _poll_s(self) -> float:
        due_s = self._buffer.batch_due_s() if self._writer.idle else None
        if due_s is None:
            return POLL_S_MAX
        return min(POLL_S_MAX, max(0.0, due_s - time.monotonic()))

    def _receive(self) -> None:
        now_s = time.monotonic()
        for broker, link in self._events:
            for frames in sockets.received(link.socket, RECEIVE_PER_TURN_MAX):
                reception = self._buffer.receive(frames, now_s, broker)
                self._last_received_s = now_s
                metrics.PUBLICATIONS_LOST.inc(reception.lost)
                if reception.discarded is not None:
                    metrics.DISCARDED.labels(reception.discarded).inc()
        # An unexpected message must not fill the queue.
        for _, link in self._brokers:
            for frames in sockets.received(link.socket, RECEIVE_PER_TURN_MAX):
                metrics.DISCARDED.labels("unexpected_answer").inc()
                self._note_refusal(frames)

    def _note_refusal(self, frames: list[bytes]) -> None:
        """A broker sends nothing else to persistence. Of equal refusals the first one is logged."""
        with contextlib.suppress(codec.WireError):
            message = codec.decode(frames)
            if isinstance(message, Refused) and message != self._refused:
                self._refused = message
                event, details = versions.explain(message, self._system_id)
                _log.error(event, **details)

    def _send(self, broker: str, stored: Stored) -> None:
        connected = {place: link.connected for place, link in self._brokers}
        links = [self._brokers.get(place) for place in routes_of(broker, connected)]
        unsent = not links
        for link in links:
            assert link is not None
            unsent |= not sockets.send(link.socket, codec.encode(stored))
        # The gateway sends unconfirmed data again, and gets its confirmation then.
        metrics.UNSENT.inc(unsent)


def _log_ends(batch: Batch, superseded: Iterable[Entry]) -> None:
    """Log the ends of sessions that are stored now."""
    dropped = {id(entry) for entry in superseded}
    for entry in batch:
        if id(entry) in dropped:
            continue
        if isinstance(entry.body, SessionFinished):
            _log.info("session_stored", session_id=entry.session_id, status=entry.body.status)
        elif isinstance(entry.body, SessionDeleted):
            _log.info("session_deleted", session_id=entry.session_id)
