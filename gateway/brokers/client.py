"""The gateway's DEALER link to the broker, driven by the asyncio event loop.

libzmq signals readiness through an edge-triggered file descriptor. After each wake-up and each send
all received messages must be drained, or there may be no further wake-up. Draining with DONTWAIT
moves about 2.5 times as many messages as ``await recv_multipart()`` of ``zmq.asyncio``.

Sends never wait. A message that the socket refuses, because its queue is full after a long absence
of the broker, is counted, and its owner sends it again later.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import structlog
import zmq

from gateway.brokers.contact import BrokerContact, JobsLost
from gateway.telemetry.metrics import BUS_DROPPED, bus_received, bus_sent
from runtime.bus_link import Link
from runtime.link_rate import TRIAL_BYTES, LinkRate, LinkUse
from wire import codec, sockets, versions
from wire.keys import KeyFiles
from wire.messages import (
    Claimed,
    ExpectedAudio,
    Hello,
    Load,
    Message,
    Refused,
    Result,
    Stored,
    Welcome,
)

HELLO_EVERY_S = 0.25
"""The interval of the broker's load reports. Each gateway knows the sessions that others admit
within half a second."""
HELLO_AFTER_BYTES = 32_000
"""A HELLO follows this much: one second of audio. Its answer shows how long it has queued …"""
HELLO_INTERVAL_S_MIN = 0.05
"""… but no sooner than this after the one before: a wide link needs no measurement."""
DRAIN_MESSAGES_MAX = 200
"""Messages handled before other tasks of the event loop run."""

Handler = Callable[[Message], None]


class BrokerClient:
    """One socket, owned by the event loop's thread.

    ``on_message`` gets each Result, Stored, Claimed and Load. ``on_jobs_lost`` is called when jobs
    or their results may be lost. ``expected_audio`` is called for each HELLO.
    """

    def __init__(
        self,
        endpoint: str,
        gateway_id: str,
        *,
        keys: KeyFiles | None = None,
        system_id: str,
        on_message: Handler,
        on_jobs_lost: Callable[[], None],
        expected_audio: Callable[[], tuple[ExpectedAudio, ...]] = tuple,
    ) -> None:
        self._endpoint = endpoint
        self._gateway_id = gateway_id
        self._keys = keys
        self._system_id = system_id
        self._on_message = on_message
        self._on_jobs_lost = on_jobs_lost
        self._expected_audio = expected_audio
        self._contact = BrokerContact()
        self._rate = LinkRate()
        self._refused: Refused | None = None
        """The broker's latest answer to HELLO, if it was a refusal."""
        self._drain_scheduled = False
        self._hello: asyncio.Task[None] | None = None
        self._hellos = 0
        """Number of the last HELLO."""
        self._hello_sent_s = -math.inf
        self._log = structlog.get_logger()

    def open(self) -> None:
        """Connect, and start to send HELLO. Call it on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._link = Link(
            self._endpoint,
            lambda endpoint, keys, events: sockets.connect_dealer(
                self._context, endpoint, self._gateway_id, keys, events=events
            ),
            self._keys,
            self._loop.time(),
        )
        self._watch()
        self._hello = self._loop.create_task(self._send_hellos())

    async def close(self) -> None:
        """Close after the last messages are sent, or ``sockets.LINGER_RESULTS_MS`` have passed."""
        if self._hello is not None:
            self._hello.cancel()
            await asyncio.gather(self._hello, return_exceptions=True)
        self._loop.remove_reader(self._descriptor)
        self._link.close()
        await asyncio.to_thread(self._context.term)

    def send(self, message: Message) -> bool:
        """Send without waiting. False: the socket refused, and the caller sends it again later."""
        if not self._send(message):
            return False
        since_s = self._loop.time() - self._hello_sent_s
        if self._rate.unmarked_bytes >= HELLO_AFTER_BYTES and since_s >= HELLO_INTERVAL_S_MIN:
            self._send_hello()
        return True

    def _send(self, message: Message) -> bool:
        frames = codec.encode(message)
        sent = sockets.send(self._link.socket, frames)
        self._schedule_drain()
        if not sent:
            BUS_DROPPED.labels("send_queue_full").inc()
            return False
        bus_sent(type(message)).inc()
        trial = isinstance(message, Hello) and bool(message.padding)
        if self._link.leaves_host:
            self._rate.note_sent(sum(map(len, frames)), self._loop.time(), trial=trial)
        return True

    def _watch(self) -> None:
        self._descriptor = int(self._link.socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._drain)

    def _follow_link(self) -> None:
        changes = self._link.turn(self._loop.time())
        if "replaced" in changes:
            self._loop.remove_reader(self._descriptor)
            self._watch()
        if "connected" in changes:
            self._contact.reconnected(self._loop.time())
            self._rate.reconnected()

    @property
    def answer_delay_s(self) -> float:
        """Age of the oldest unanswered HELLO."""
        return self._contact.answer_delay_s(self._loop.time())

    @property
    def link_use(self) -> LinkUse:
        return self._rate.use(self._loop.time())

    async def _send_hellos(self) -> None:
        while True:
            self._follow_link()
            self._send_hello()
            await asyncio.sleep(HELLO_EVERY_S)

    def _send_hello(self) -> None:
        expected = self._expected_audio()
        self._hellos += 1
        tries = self._link.connected and self._rate.trial_due(self._loop.time())
        sent = self._send(
            Hello(
                gateway_id=self._gateway_id,
                expected_audio_rate=sum(each.audio_rate for each in expected),
                expected=expected,
                version_min=versions.VERSION_MIN,
                version_max=versions.VERSION_MAX,
                system_id=self._system_id,
                number=self._hellos,
                padding=bytes(TRIAL_BYTES) if tries else b"",
            )
        )
        if sent:
            self._hello_sent_s = now_s = self._loop.time()
            self._contact.note_hello(now_s)
            if self._link.leaves_host:
                self._rate.note_mark(self._hellos, now_s)

    def _schedule_drain(self) -> None:
        if not self._drain_scheduled:
            self._drain_scheduled = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._drain_scheduled = False
        if self._link.socket.closed:
            return
        count = 0
        for frames in sockets.received(self._link.socket, DRAIN_MESSAGES_MAX):
            count += 1
            self._take(frames)
        if count == DRAIN_MESSAGES_MAX:
            self._schedule_drain()

    def _take(self, frames: list[bytes]) -> None:
        try:
            message = codec.decode(frames)
        except codec.WireError as error:
            BUS_DROPPED.labels("not_a_message").inc()
            self._log.warning("bus_message_refused", error=str(error))
            return
        bus_received(type(message)).inc()
        if isinstance(message, Welcome):
            self._refused = None
            self._contact.note_welcome()
            if message.received_ms:
                arrived_s = message.received_ms / 1000
                self._rate.note_arrival(message.hello, arrived_s, self._loop.time())
            else:
                self._rate.drop(message.hello)
            self._note_broker(message.broker_epoch)
        elif isinstance(message, Refused):
            self._note_refusal(message)
        elif isinstance(message, Load):
            self._note_broker(message.broker_epoch)
            self._on_message(message)
        elif isinstance(message, Result | Stored | Claimed):
            self._on_message(message)
        else:
            BUS_DROPPED.labels("unexpected_kind").inc()

    def _note_refusal(self, refused: Refused) -> None:
        event, details = versions.explain(refused, self._system_id)
        BUS_DROPPED.labels(versions.reason_of(refused)).inc()
        # The broker refuses each HELLO; log the first refusal.
        if refused != self._refused:
            self._refused = refused
            self._log.error(event, **details)

    def _note_broker(self, epoch: str) -> None:
        for action in self._contact.note(epoch, self._loop.time()):
            if isinstance(action, JobsLost):
                self._on_jobs_lost()
            else:
                self._log.info(action.event, epoch=action.epoch, silent_s=round(action.silent_s, 1))
