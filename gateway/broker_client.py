"""The gateway's DEALER link to the broker, driven by the asyncio event loop.

libzmq signals readiness through an edge-triggered file descriptor. After each wake-up and each send
all received messages must be drained, or there may be no further wake-up. Draining with DONTWAIT
moves about 2.5 times as many messages as ``await recv_multipart()`` of ``zmq.asyncio``.

Sends never wait. A message that the socket refuses, because its queue is full after a long absence
of the broker, is counted, and its owner sends it again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
import zmq

from gateway.broker_contact import BrokerContact, JobsLost
from gateway.telemetry.metrics import BUS_DROPPED, bus_received, bus_sent
from wire import codec, sockets, versions
from wire.keys import Keys
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
        keys: Keys | None = None,
        on_message: Handler,
        on_jobs_lost: Callable[[], None],
        expected_audio: Callable[[], tuple[ExpectedAudio, ...]] = tuple,
    ) -> None:
        self._endpoint = endpoint
        self._gateway_id = gateway_id
        self._keys = keys
        self._on_message = on_message
        self._on_jobs_lost = on_jobs_lost
        self._expected_audio = expected_audio
        self._contact = BrokerContact()
        self._refused: Refused | None = None
        """The broker's latest answer to HELLO, if it was a refusal."""
        self._drain_scheduled = False
        self._hello: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()

    def open(self) -> None:
        """Connect, and start to send HELLO. Call it on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = sockets.connect_dealer(
            self._context, self._endpoint, self._gateway_id, self._keys
        )
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._drain)
        self._hello = self._loop.create_task(self._send_hello())

    async def close(self) -> None:
        """Close after the last messages are sent, or ``sockets.LINGER_RESULTS_MS`` have passed."""
        if self._hello is not None:
            self._hello.cancel()
            await asyncio.gather(self._hello, return_exceptions=True)
        self._loop.remove_reader(self._descriptor)
        self._socket.close()
        await asyncio.to_thread(self._context.term)

    def send(self, message: Message) -> bool:
        """Send without waiting. False: the socket refused, and the caller sends it again later."""
        try:
            self._socket.send_multipart(codec.encode(message), zmq.DONTWAIT)
        except zmq.Again:
            BUS_DROPPED.labels("send_queue_full").inc()
            return False
        finally:
            self._schedule_drain()
        bus_sent(type(message)).inc()
        return True

    async def _send_hello(self) -> None:
        while True:
            expected = self._expected_audio()
            self.send(
                Hello(
                    gateway_id=self._gateway_id,
                    expected_audio_rate=sum(each.audio_rate for each in expected),
                    expected=expected,
                    version_min=versions.VERSION_MIN,
                    version_max=versions.VERSION_MAX,
                )
            )
            await asyncio.sleep(HELLO_EVERY_S)

    def _schedule_drain(self) -> None:
        if not self._drain_scheduled:
            self._drain_scheduled = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._drain_scheduled = False
        if self._socket.closed:
            return
        for _ in range(DRAIN_MESSAGES_MAX):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._take(frames)
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
        BUS_DROPPED.labels("version_refused").inc()
        # The broker refuses each HELLO; log the first refusal.
        if refused != self._refused:
            self._refused = refused
            self._log.error(
                "protocol_version_refused",
                spoken=[versions.VERSION_MIN, versions.VERSION_MAX],
                broker=[refused.version_min, refused.version_max],
            )

    def _note_broker(self, epoch: str) -> None:
        for action in self._contact.note(epoch, self._loop.time()):
            if isinstance(action, JobsLost):
                self._on_jobs_lost()
            else:
                self._log.info(action.event, epoch=action.epoch, silent_s=round(action.silent_s, 1))
