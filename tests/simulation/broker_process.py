"""The broker process: the real routing core, its sockets, kills and stops."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from broker import events as e
from broker.limits import Limits
from broker.routing import Broker
from tests.simulation.connection import BREAK_S, Connection, Kind
from tests.simulation.oracle import TICK_S, BrokerOracle, InvariantError, Seen
from tests.simulation.world import World
from wire import messages as m

STOP_S_MAX = 4.0
LONG_STOP_S_MAX = 6.0


def new_core(epoch: str, limits: Limits) -> Broker:
    """The core of a broker that starts. Planted bugs replace this function."""
    return Broker(epoch=epoch, limits=limits, system_id="")


class BrokerProcess:
    """Peers add their connections to ``front`` or ``back``."""

    def __init__(self, world: World, place: str, seen: Seen, claimed: dict[str, int]) -> None:
        """``seen`` and ``claimed`` are those of all brokers."""
        self._world = world
        self.place = place
        self.ended = False
        self.cut_kinds: frozenset[Kind] = frozenset()
        """Kinds of peers from which it is cut off for good."""
        self._lives = 0
        self._stopped_until_s = 0.0
        self._inbox: list[e.Event] = []
        self._unsent: list[e.Event] = []
        self.front: dict[bytes, Connection] = {}
        self.back: dict[bytes, Connection] = {}
        self.subscriber: Connection | None = None
        self.core: Broker | None = None
        self.oracle: BrokerOracle | None = None
        self._counts: Counter[str] = Counter()
        """Of processes that have ended."""
        self._seen = seen
        self._claimed = claimed
        self.start()

    @property
    def alive(self) -> bool:
        return self.core is not None

    @property
    def counts(self) -> Counter[str]:
        return self._counts + (self.oracle.counts if self.alive and self.oracle else Counter())

    @property
    def connections(self) -> Iterator[Connection]:
        """Those of living peers."""
        subscribers = [] if self.subscriber is None else [self.subscriber]
        everyone = [*self.front.values(), *self.back.values(), *subscribers]
        return (connection for connection in everyone if connection.peer.alive)

    # ------------------------------------------------------------------------------ start and end

    def start(self) -> None:
        world = self._world
        self._lives += 1
        self.core = new_core(f"epoch-{self._lives} of {self.place}", world.options.limits)
        self.oracle = BrokerOracle(self.core, world.options, self._seen)
        world.note("broker starts", self.core.epoch)
        if self.subscriber is not None and self.subscriber.takes_messages:
            self.receive(e.SubscriptionChanged(b"", True))
        life = self._lives
        unsent, self._unsent = self._unsent, []
        for event in unsent:
            self.receive(event)
        if world.options.reconnects:
            for connection in self.connections:
                connection.renew()
        world.after(0.0, lambda: self._tick(life))

    def kill(self) -> None:
        if self.core is not None:
            self._die()
            # Often so soon that workers are still busy with jobs of the epoch before.
            self._world.after(self._world.rng.choice((0.02, 0.1, 1.5)), self._restart)

    def end(self) -> None:
        """For good."""
        self.ended = True
        if self.core is not None:
            self._die()

    def _die(self) -> None:
        assert self.core is not None
        self._world.note("broker dies", self.core.epoch)
        self._counts = self.counts
        self.core = None
        self._inbox.clear()
        if self._world.options.reconnects:
            for connection in self.connections:
                connection.peer.connection_changed(connection)

    def _restart(self) -> None:
        if not self.ended:
            self.start()

    def stop(self) -> None:
        """SIGSTOP for a while."""
        world = self._world
        if self.core is not None and not self._stopped:
            longest_s = LONG_STOP_S_MAX if world.options.long_stops else STOP_S_MAX
            until_s = self._stopped_until_s = world.now_s + world.rng.uniform(0.5, longest_s)
            world.note("broker stops", until_s)
            if world.options.long_stops:
                world.after(BREAK_S, lambda: self._replace_connections(until_s))

    def _replace_connections(self, until_s: float) -> None:
        """Unless the stop until ``until_s`` has ended. When it ends, the broker sends over the new
        connections before it has received what peers said on them."""
        if self.core is not None and self._stopped and self._stopped_until_s == until_s:
            for connection in self.connections:
                connection.replace()

    def cont(self) -> None:
        self._stopped_until_s = 0.0

    def _tick(self, life: int) -> None:
        if life != self._lives or self.core is None:
            return
        if not self._stopped:
            if self._inbox and self.oracle is not None:
                self.oracle.excuse(self._world.now_s)
            inbox, self._inbox = self._inbox, []
            for event in inbox:
                self._feed(event)
            self._feed(e.Tick())
        self._world.after(TICK_S, lambda: self._tick(life))

    @property
    def _stopped(self) -> bool:
        return self._world.now_s < self._stopped_until_s

    # ------------------------------------------------------------------------------------ messages

    def take(self, connection: Connection) -> None:
        """A peer connects for the first time."""
        identity = connection.peer.identity
        if connection.kind == "persistence":
            self.subscriber = connection
        elif connection.kind == "worker":
            self.back[identity] = connection
        else:
            self.front[identity] = connection
        if connection.kind in self.cut_kinds:
            connection.cut(math.inf)

    def receive(self, event: e.Event) -> None:
        if self.core is None:
            # A DEALER keeps what it has not written yet; the rest is lost with the connection.
            if isinstance(event, e.Received) and not self.ended and self._world.rng.random() < 0.5:
                self._unsent.append(event)
            return
        if self._stopped or self._inbox:
            self._inbox.append(event)
        else:
            self._feed(event)

    def _feed(self, event: e.Event) -> None:
        core, oracle, now_s = self.core, self.oracle, self._world.now_s
        assert core is not None and oracle is not None
        if not isinstance(event, e.Tick):
            self._world.note("broker takes", event)
        try:
            actions = core.handle(event, now_s)
        except Exception as error:
            raise InvariantError(6, f"the core fails: {error!r}") from error
        oracle.observe(event, actions, now_s)
        for refused in [event for action in actions for event in self._perform(action)]:
            self._feed(refused)

    def _perform(self, action: e.Action) -> list[e.Event]:
        """Returns refused sends as events, as the service does."""
        match action:
            case e.Send(side, identity, message):
                peers = self.front if side == "front" else self.back
                if not self._send(peers.get(identity), message):
                    return [e.Unsent(action)]
            case e.Publish(message):
                if not self._send(self.subscriber, message):
                    return [e.Unsent(action)]
        return []

    def _send(self, connection: Connection | None, message: m.Message) -> bool:
        if connection is None or not connection.takes_messages:
            return False
        if not isinstance(message, m.Load):
            self._world.note(f"to {connection.peer.identity.decode()}", message)
        elif not self._world.options.uses_loads:
            return True
        if isinstance(message, m.Claimed):
            known = self._claimed.get(message.session_id, 0)
            self._claimed[message.session_id] = max(known, message.generation)
        connection.to_peer(message)
        return True
