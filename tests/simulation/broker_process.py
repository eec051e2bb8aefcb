"""The broker process: the real routing core, its sockets, kills and stops."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from broker import events as e
from broker.limits import Limits
from broker.routing import Broker
from tests.simulation.oracle import TICK_S, BrokerOracle, InvariantError, Seen
from tests.simulation.world import Link, World
from wire import messages as m


class Peer(Protocol):
    """A process with a DEALER, or with persistence's SUB as well."""

    identity: bytes
    alive: bool
    from_broker: Link

    def receive(self, message: m.Message) -> None: ...


def new_core(epoch: str, limits: Limits) -> Broker:
    """The core of a broker that starts. Planted bugs replace this function."""
    return Broker(epoch=epoch, limits=limits, system_id="")


class BrokerProcess:
    """Peers add themselves to ``front`` or ``back`` and send with ``to_front`` or ``to_back``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lives = 0
        self._stopped_until_s = 0.0
        self._inbox: list[e.Event] = []
        self._unsent: list[e.Event] = []
        self.front: dict[bytes, Peer] = {}
        self.back: dict[bytes, Peer] = {}
        self.subscriber: Peer | None = None
        self.core: Broker | None = None
        self.oracle: BrokerOracle | None = None
        self.counts: Counter[str] = Counter()
        """Of broker processes that have ended."""
        self.seen = Seen()
        self.claimed: dict[str, int] = {}
        """Newest generation of each session for which a gateway received ``Claimed``."""
        self.start()

    # ------------------------------------------------------------------------------ start and end

    def start(self) -> None:
        world = self._world
        self._lives += 1
        self.core = new_core(f"epoch-{self._lives}", world.options.limits)
        self.oracle = BrokerOracle(self.core, world.options, self.seen)
        world.note("broker starts", self.core.epoch)
        if self.subscriber is not None and self.subscriber.alive:
            self.receive(e.SubscriptionChanged(b"", True))
        life = self._lives
        unsent, self._unsent = self._unsent, []
        for event in unsent:
            self.receive(event)
        world.after(0.0, lambda: self._tick(life))

    def kill(self) -> None:
        if self.core is not None:
            self._world.note("broker dies", self.core.epoch)
            assert self.oracle is not None
            self.counts += self.oracle.counts
            self.core = None
            self._inbox.clear()
            # Often so soon that workers are still busy with jobs of the epoch before.
            self._world.after(self._world.rng.choice((0.02, 0.1, 1.5)), self.start)

    def stop(self) -> None:
        """SIGSTOP for a while."""
        if self.core is not None and not self._stopped:
            self._stopped_until_s = self._world.now_s + self._world.rng.uniform(0.5, 4.0)
            self._world.note("broker stops", self._stopped_until_s)

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

    def to_front(self, link: Link, identity: bytes, message: m.Message) -> None:
        link.send(lambda: self.receive(e.FrontReceived(identity, message)))

    def to_back(self, link: Link, identity: bytes, message: m.Message) -> None:
        link.send(lambda: self.receive(e.BackReceived(identity, message)))

    def receive(self, event: e.Event) -> None:
        if self.core is None:
            # A DEALER keeps what it has not written yet; the rest is lost with the connection.
            if (
                isinstance(event, e.FrontReceived | e.BackReceived)
                and self._world.rng.random() < 0.5
            ):
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
            case e.SendFront(identity, message):
                if not self._send(self.front.get(identity), message):
                    return [e.FrontUnsent(identity, message)]
            case e.SendBack(identity, message):
                if not self._send(self.back.get(identity), message):
                    return [e.BackUnsent(identity, message)]
            case e.Publish(message):
                if not self._send(self.subscriber, message):
                    return [e.Unpublished(message)]
        return []

    def _send(self, peer: Peer | None, message: m.Message) -> bool:
        if peer is None or not peer.alive:
            return False
        if not isinstance(message, m.Load):
            self._world.note(f"to {peer.identity.decode()}", message)
        elif not self._world.options.real_gateways:
            return True  # Gateways that only send jobs do not use it.
        if isinstance(message, m.Claimed):
            known = self.claimed.get(message.session_id, 0)
            self.claimed[message.session_id] = max(known, message.generation)
        peer.from_broker.send(lambda: peer.receive(message))
        return True
