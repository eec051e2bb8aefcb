"""All brokers of a schedule. Some end for good, others join, others are cut off from peers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Protocol

from tests.simulation.broker_process import BrokerProcess
from tests.simulation.connection import BREAK_S, Kind
from tests.simulation.oracle import Seen
from tests.simulation.world import World

BROKERS_MAX = 4
"""In one schedule, those that have ended included."""
JOIN_S_MAX = 1.0
"""Longest time until a peer knows the address of a broker that joins."""
CUT_S_MAX = 8.0
"""Longer than leases, and than the silence after which sessions move."""
KINDS: tuple[Kind, ...] = ("gateway", "worker", "persistence")


class Follower(Protocol):
    """A process that connects to each broker that it is given. Gateways follow ``Addresses``."""

    alive: bool

    def connect(self, broker: BrokerProcess) -> None: ...


class Addresses:
    """Replaces ``runtime.broker_addresses.BrokerAddresses``."""

    hurry = False

    def __init__(self, fleet: BrokerFleet) -> None:
        self._fleet = fleet

    @property
    def current(self) -> dict[str, str]:
        return {place: place for place in self._fleet.listed}

    def close(self) -> None: ...


class BrokerFleet:
    def __init__(self, world: World) -> None:
        self._world = world
        self.seen = Seen()
        self.claimed: dict[str, int] = {}
        """Newest generation of each session for which a gateway received ``Claimed``."""
        self._followers: list[Follower] = []
        self._all: dict[str, BrokerProcess] = {}
        self.listed: dict[str, BrokerProcess] = {}
        """Those whose addresses are known, by place."""
        for _ in range(world.options.brokers):
            self._add()

    def __iter__(self) -> Iterator[BrokerProcess]:
        """The brokers that have not ended for good."""
        return (broker for broker in self._all.values() if not broker.ended)

    @property
    def whole(self) -> list[BrokerProcess]:
        """Those that no lasting cut concerns."""
        return [broker for broker in self if not broker.cut_kinds]

    @property
    def several(self) -> bool:
        return len(self._all) > 1

    def attach(self, follower: Follower) -> None:
        """Connect ``follower`` to all brokers, also to those that join later."""
        self._followers.append(follower)
        for broker in self.listed.values():
            follower.connect(broker)

    @property
    def counts(self) -> Counter[str]:
        counts = sum((broker.counts for broker in self._all.values()), Counter[str]())
        counts["broker_joined"] = len(self._all) - self._world.options.brokers
        counts["broker_ended"] = sum(broker.ended for broker in self._all.values())
        counts["broker_isolated"] = sum(bool(broker.cut_kinds) for broker in self._all.values())
        return counts

    # -------------------------------------------------------------------------------------- faults

    def pick(self) -> BrokerProcess:
        brokers = list(self)
        return brokers[0] if len(brokers) == 1 else self._world.rng.choice(brokers)

    def end(self) -> None:
        """A broker ends for good, unless it is the last one that reaches all. Its address may be
        known for longer."""
        broker = self.pick()
        if self.whole in ([], [broker]):
            return
        broker.end()
        if self._world.rng.random() < 0.5:
            del self.listed[broker.place]

    def join(self) -> None:
        """A broker is added."""
        if len(self._all) >= BROKERS_MAX:
            return
        broker = self._add()
        for follower in self._followers:
            delay_s = self._world.rng.uniform(0.0, JOIN_S_MAX)
            self._world.after(delay_s, partial(self._connect, follower, broker))

    def partition(self) -> None:
        """Cut one broker off from some of its peers, or from all of a kind, for a while."""
        broker, rng = self.pick(), self._world.rng
        seconds = rng.uniform(0.2, CUT_S_MAX)
        up = down = True
        if seconds < BREAK_S:
            # In one direction no connection lasts longer.
            up = rng.random() < 0.7
            down = not up or rng.random() < 0.6
        kinds = rng.sample(KINDS, rng.choice((1, 1, 2, 3)))
        share = rng.choice((0.5, 1.0))
        for connection in broker.connections:
            if connection.kind in kinds and rng.random() < share:
                connection.cut(seconds, up=up, down=down)

    def isolate(self) -> None:
        """Cut one broker off from all of a kind for good, unless it is the last one that reaches
        all: the others must do."""
        broker, rng = self.pick(), self._world.rng
        if self.whole in ([], [broker]):
            return
        broker.cut_kinds = frozenset(rng.sample(KINDS, rng.choice((1, 1, 2))))
        self._world.note("broker is cut off for good", (broker.place, sorted(broker.cut_kinds)))
        for connection in broker.connections:
            if connection.kind in broker.cut_kinds:
                connection.cut(math.inf)

    def heal(self) -> None:
        for broker in self:
            broker.cont()
            for connection in broker.connections:
                connection.heal()

    # ------------------------------------------------------------------------------------- members

    def _add(self) -> BrokerProcess:
        place = f"broker-{len(self._all) + 1}"
        broker = BrokerProcess(self._world, place, self.seen, self.claimed)
        self._all[place] = self.listed[place] = broker
        return broker

    @staticmethod
    def _connect(follower: Follower, broker: BrokerProcess) -> None:
        if follower.alive and not broker.ended:
            follower.connect(broker)
