"""All brokers of a gateway: each session's messages go to its own broker, chosen by ``choice``.

This module follows the brokers' addresses and passes on their messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable
from functools import partial

import structlog
from msgspec import Struct

from gateway.brokers.choice import BrokerChoice
from gateway.brokers.client import BrokerClient, Handler
from gateway.brokers.loads import combined
from gateway.telemetry.metrics import (
    BROKER_LIVE,
    BROKER_SESSIONS,
    BUS_DROPPED,
    LINK_CAPACITY,
    SESSIONS_MOVED,
)
from runtime.broker_addresses import BrokerAddresses
from runtime.link_rate import LinkUse
from wire.keys import KeyFiles
from wire.messages import Cancel, Claim, ExpectedAudio, Job, Load, Message, Record

FOLLOW_S = 0.25
"""Interval at which lost brokers and new addresses are noticed."""


class BrokerState(Struct, frozen=True, kw_only=True):
    """A broker, as this gateway sees it."""

    endpoint: str
    live: bool
    """It has reported its load within the last two seconds."""
    sessions: int
    """Sessions of this gateway that belong to it."""
    workers: int
    queued: int
    est_wait_ms: int
    """``workers``, ``queued``, ``est_wait_ms``: from its last report; 0: it never sent one."""


class Brokers:
    """Call ``open`` and ``close`` on the event loop.

    ``on_message`` gets each Result, Stored and Claimed, and one Load that combines those of all
    brokers. ``on_jobs_lost`` gets the sessions whose unanswered jobs must be sent again.
    ``on_subscribed`` is called when persistence begins to receive what a broker publishes.
    ``expected_audio`` is called for each HELLO.
    """

    def __init__(
        self,
        endpoints: str,
        gateway_id: str,
        *,
        keys: KeyFiles | None = None,
        system_id: str,
        on_message: Handler,
        on_jobs_lost: Callable[[Iterable[str]], None],
        on_subscribed: Callable[[], None],
        expected_audio: Callable[[], tuple[ExpectedAudio, ...]] = tuple,
    ) -> None:
        """``endpoints``: BROKER_FRONTEND."""
        self._listed = endpoints
        self._on_message = on_message
        self._on_jobs_lost = on_jobs_lost
        self._on_subscribed = on_subscribed
        self._connect = partial(
            BrokerClient,
            gateway_id=gateway_id,
            keys=keys,
            system_id=system_id,
            expected_audio=expected_audio,
        )
        self.clients: dict[str, BrokerClient] = {}
        """By endpoint."""
        self._choice = BrokerChoice()
        self._loads: dict[str, Load] = {}
        """By endpoint."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger()

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._addresses = BrokerAddresses(self._listed)
        self._follow_addresses()
        self._following = self._loop.create_task(self._follow())

    async def close(self) -> None:
        """Close after the last messages are sent, as ``BrokerClient.close``."""
        self._addresses.close()
        self._following.cancel()
        await asyncio.gather(self._following, *self._tasks, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self.clients.values()))

    def send(self, message: Job | Cancel | Record | Claim, *, again: bool = False) -> bool:
        """Send to the session's broker, or to all, without waiting. False: the sockets refused, or
        there is no broker, and the caller sends it again later. ``again``: it was sent before, and
        not confirmed in time."""
        brokers = self._choice.brokers_for(message, self._loop.time(), again=again)
        if not brokers:
            BUS_DROPPED.labels("no_broker").inc()
        sent = [self.clients[broker].send(message) for broker in brokers]
        return any(sent)

    def forget(self, session_id: str) -> None:
        """The session has ended."""
        self._choice.forget(session_id)

    @property
    def answer_delay_s(self) -> float:
        """Age of the oldest unanswered HELLO of a live broker, the largest of all."""
        clients = self._live() or self.clients
        return max((client.answer_delay_s for client in clients.values()), default=0.0)

    @property
    def link_uses(self) -> dict[str, LinkUse]:
        """Traffic and capacity of the links to live brokers, by endpoint."""
        return {endpoint: client.link_use for endpoint, client in self._live().items()}

    def _live(self) -> dict[str, BrokerClient]:
        return {name: self.clients[name] for name in self._choice.live(self._loop.time())}

    def states(self) -> list[BrokerState]:
        """Each broker, in order of endpoints."""
        sessions, now_s = self._choice.session_counts(), self._loop.time()
        loads = {endpoint: self._loads.get(endpoint) for endpoint in sorted(self.clients)}
        return [
            BrokerState(
                endpoint=endpoint,
                live=self._choice.is_live(endpoint, now_s),
                sessions=sessions[endpoint],
                workers=load.workers if load else 0,
                queued=load.queued if load else 0,
                est_wait_ms=load.est_wait_ms if load else 0,
            )
            for endpoint, load in loads.items()
        ]

    def _take(self, broker: str, message: Message) -> None:
        if isinstance(message, Load):
            now_s = self._loop.time()
            self._choice.heard(broker, message.workers, now_s)
            before, self._loads[broker] = self._loads.get(broker), message
            if message.subscribed and _subscribed_epoch(before) != message.broker_epoch:
                self._on_subscribed()
            is_live = self._choice.is_live
            message = combined([load for n, load in self._loads.items() if is_live(n, now_s)])
        self._on_message(message)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_S)
            self._follow_addresses()
            moved = self._choice.moves(self._loop.time())
            if moved:
                SESSIONS_MOVED.inc(len(moved))
                self._log.warning("sessions_moved", sessions=len(moved))
                self._on_jobs_lost(moved)
            for state in self.states():
                BROKER_LIVE.labels(state.endpoint).set(state.live)
                BROKER_SESSIONS.labels(state.endpoint).set(state.sessions)
            for endpoint, use in self.link_uses.items():
                LINK_CAPACITY.labels(endpoint).set(0 if math.isinf(use.capacity) else use.capacity)

    def _follow_addresses(self) -> None:
        current = dict.fromkeys(self._addresses.current.values())
        for endpoint in current.keys() - self.clients.keys():
            self._choice.add(endpoint)
            client = self._connect(
                endpoint,
                on_message=partial(self._take, endpoint),
                on_jobs_lost=partial(self._note_lost, endpoint),
            )
            self.clients[endpoint] = client
            client.open()
        now_s = self._loop.time()
        away = [name for name in self.clients if not self._choice.is_live(name, now_s)]
        for endpoint in away:
            if endpoint not in current:
                self._drop(endpoint)
        self._addresses.hurry = bool(away) or not self.clients

    def _drop(self, endpoint: str) -> None:
        """The broker has no address any more, and is silent."""
        self._choice.remove(endpoint)
        self._loads.pop(endpoint, None)
        for gauge in (BROKER_LIVE, BROKER_SESSIONS, LINK_CAPACITY):
            with contextlib.suppress(KeyError):
                gauge.remove(endpoint)
        closing = self._loop.create_task(self.clients.pop(endpoint).close())
        self._tasks.add(closing)
        closing.add_done_callback(self._tasks.discard)

    def _note_lost(self, endpoint: str) -> None:
        self._on_jobs_lost(self._choice.sessions_of(endpoint))


def _subscribed_epoch(load: Load | None) -> str | None:
    """The epoch of the broker if persistence was subscribed to it."""
    return load.broker_epoch if load is not None and load.subscribed else None
