"""The connection of a process to one broker: both directions, and how it breaks."""

from __future__ import annotations

import math
from typing import Literal, Protocol

from broker import events as e
from tests.simulation.world import Link, World
from wire import messages as m

BREAK_S = 3.0
"""A connection that is cut for this long is lost: the heartbeats of ZMTP are missing."""
RECONNECT_S_MAX = 0.3

Kind = Literal["gateway", "worker", "persistence"]


class Broker(Protocol):
    """The other end."""

    place: str

    @property
    def alive(self) -> bool: ...
    def receive(self, event: e.Event) -> None: ...


class Peer(Protocol):
    """A process with a DEALER to each broker, or with persistence's SUB as well."""

    identity: bytes
    alive: bool

    def receive(self, connection: Connection, message: m.Message) -> None: ...
    def connection_changed(self, connection: Connection) -> None:
        """It was lost, or made anew. Then what was in transit before is lost."""


class Connection:
    """``up`` leads to the broker and ``down`` to the peer. A connection may be cut at any moment.
    TCP delivers what was sent in the meantime if the cut is shorter than ``BREAK_S``. After a
    longer one that is lost, and the peer makes a new connection."""

    def __init__(self, world: World, peer: Peer, broker: Broker, kind: Kind) -> None:
        self.peer = peer
        self.broker = broker
        self.kind = kind
        self.up, self.down = Link(world), Link(world)
        self._world = world
        self._broken = False
        self._healed_s = 0.0
        self._unsent: list[e.Event] = []

    @property
    def connected(self) -> bool:
        """As the peer knows it."""
        return not self._broken and self.broker.alive

    @property
    def takes_messages(self) -> bool:
        """Whether the broker's socket has the peer."""
        return not self._broken and self.peer.alive

    @property
    def lasting(self) -> bool:
        """It is cut for good."""
        return self._healed_s == math.inf

    def to_broker(self, event: e.Event) -> None:
        if not self._broken:
            self.up.send(lambda: self.broker.receive(event))
        elif self._world.rng.random() < 0.5:
            # A DEALER keeps what it has not written yet.
            self._unsent.append(event)

    def to_peer(self, message: m.Message) -> None:
        self.down.send(lambda: self.peer.receive(self, message))

    def cut(self, seconds: float, *, up: bool = True, down: bool = True) -> None:
        """Cut one direction or both. ``inf``: for good."""
        world = self._world
        self._healed_s = max(self._healed_s, world.now_s + seconds)
        world.note("cut", (self.peer.identity, self.broker.place, seconds, up, down))
        if up:
            self.up.hold()
        if down:
            self.down.hold()
        world.after(BREAK_S, self._break_if_cut)
        if seconds < math.inf:
            world.after(seconds, self._heal_if_due)

    def heal(self) -> None:
        """End the cut, unless it lasts."""
        if not self.lasting:
            self._healed_s = 0.0
            self._heal_if_due()

    def renew(self) -> None:
        """The broker has restarted."""
        self._world.after(self._world.rng.uniform(0.0, RECONNECT_S_MAX), self._reconnect)

    def replace(self) -> None:
        """The broker is stopped, and the peer misses its heartbeats. It makes a new connection,
        which the broker's kernel accepts."""
        if not self._cut and not self._broken:
            self._break()
            self.renew()

    @property
    def _cut(self) -> bool:
        return self.up.holding or self.down.holding

    def _heal_if_due(self) -> None:
        if not self._cut or self._world.now_s < self._healed_s:
            return
        self.up.release()
        self.down.release()
        if self._broken:
            self.renew()

    def _break_if_cut(self) -> None:
        # A cut that began later breaks it a little early.
        if not self._cut or self._broken:
            return
        self._break()
        self.up.drop()
        self.down.drop()

    def _break(self) -> None:
        self._broken = True
        self._world.note("disconnected", (self.peer.identity, self.broker.place))
        if self.peer.alive:
            self.peer.connection_changed(self)

    def _reconnect(self) -> None:
        if self._cut or not (self.peer.alive and self.broker.alive):
            return
        self._broken = False
        self._world.note("connected", (self.peer.identity, self.broker.place))
        unsent, self._unsent = self._unsent, []
        for event in unsent:
            self.to_broker(event)
        self.peer.connection_changed(self)
