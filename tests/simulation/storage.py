"""Persistence's process: rows in memory, each key once, confirmed after it is a row."""

from __future__ import annotations

from broker.events import FrontReceived, SubscriptionChanged
from tests.simulation.broker_host import BrokerHost
from tests.simulation.world import Link, World
from wire import messages as m

StoredRow = m.Result | m.Record


class StorageHost:
    """Rows outlive its restarts, as PostgreSQL's do."""

    identity = b"persistence"

    def __init__(self, world: World, broker: BrokerHost) -> None:
        self.alive = True
        self.rows: dict[tuple[str, str, int], StoredRow] = {}
        self.from_broker = Link(world)
        self._to_broker = Link(world)
        self._world = world
        self._broker = broker
        broker.subscriber = self
        self._subscribe()

    def receive(self, message: m.Message) -> None:
        if not self.alive:
            return
        match message:
            case m.PublishedResult(gateway_id=gateway_id, result=result):
                row: StoredRow = result
                key = m.StoredKey(session_id=result.session_id, kind="result", seq=result.seq)
            case m.PublishedRecord(gateway_id=gateway_id, record=record):
                row = record
                key = m.StoredKey(
                    session_id=record.session_id, kind="record", seq=record.record_seq
                )
            case _:
                raise AssertionError(f"not for persistence: {message}")
        self.rows.setdefault((key.kind, key.session_id, key.seq), row)
        stored = m.Stored(gateway_id=gateway_id, keys=(key,))
        broker, identity = self._broker, self.identity
        self._to_broker.send(lambda: broker.receive(FrontReceived(identity, stored)))

    def restart(self) -> None:
        if self.alive:
            self._world.note("persistence dies", "")
            self.alive = False
            self._broker.receive(SubscriptionChanged(b"", False))
            self._world.after(self._world.rng.uniform(0.1, 1.5), self._start)

    def _start(self) -> None:
        self.alive = True
        self._subscribe()

    def _subscribe(self) -> None:
        self._broker.receive(SubscriptionChanged(b"", True))
