"""The persistence process: the real batch buffer, tables in memory, and database outages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

from broker.events import Received, SubscriptionChanged
from gateway.session.records import CHUNK_DETAILS_PER_RECORD
from persistence.batch_buffer import Batch, BatchBuffer, Entry, Limits, routes_of
from persistence.reads import StoreUnavailable
from tests.simulation.broker_fleet import BrokerFleet
from tests.simulation.broker_process import BrokerProcess
from tests.simulation.connection import Connection
from tests.simulation.oracle import InvariantError
from tests.simulation.tables import Tables
from tests.simulation.world import World
from wire import messages as m
from wire import publication
from wire.records import SegmentCopy

RETRY_S = 0.2
SWEEP_EVERY_S = 5.0
LOST_AFTER_S = 30.0
Key = tuple[str, m.StoredKey]


class Database:
    """Rows that outlive all processes, and outages."""

    def __init__(self, world: World, check: Callable[[str, SegmentCopy], None]) -> None:
        """``check`` receives the session id and each row of ``asr_segments`` to be committed."""
        self.tables = Tables()
        self._check = check
        self.committed: set[Key] = set()
        """Keys that persistence may confirm, with their gateways."""
        self._world = world
        self._down_until_s = 0.0
        world.after(SWEEP_EVERY_S, self._sweep)

    @property
    def up(self) -> bool:
        return self._world.now_s >= self._down_until_s

    def fail(self) -> None:
        seconds = self._world.rng.uniform(0.3, 4.0)
        self._down_until_s = self._world.now_s + seconds
        self._world.note("database fails", seconds)

    def heal(self) -> None:
        self._down_until_s = 0.0

    def commit(self, batch: Batch) -> list[Entry]:
        for entry in batch:
            if isinstance(entry.body, SegmentCopy):
                self._check(entry.session_id, entry.body)
        self._world.note("commit", [(e.gateway_id, e.key, e.body) for e in batch])
        superseded = self.tables.write(batch, self._world.now_s)
        self.committed |= {(entry.gateway_id, entry.key) for entry in batch}
        return superseded

    def check_stored(self, stored: m.Stored) -> None:
        """A gateway has received ``stored``. Raises InvariantError."""
        for key in stored.keys:
            if (stored.gateway_id, key) not in self.committed:
                raise InvariantError(3, f"{key} is confirmed and not committed")

    def _sweep(self) -> None:
        if self.up:
            self.tables.mark_lost(self._world.now_s, LOST_AFTER_S)
        self._world.after(SWEEP_EVERY_S, self._sweep)


class Reader:
    """A gateway's reads, with the interface of ``persistence.reads.SessionReader``."""

    def __init__(self, world: World, database: Database) -> None:
        self._world = world
        self._database = database

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def resume_state(self, session_id: str, _tenant: str) -> dict[str, Any] | None:
        await self._wait()
        state = self._database.tables.resume_state(session_id)
        await asyncio.sleep(self._world.rng.uniform(0.0, 0.01))
        return state

    async def owner_state(self, session_id: str, tenant: str) -> dict[str, Any] | None:
        state = await self.resume_state(session_id, tenant) or {}
        for name in ("segments", "speakers", "centroids"):
            state.pop(name, None)
        return state or None

    async def exists(self, session_id: str) -> bool:
        await self._wait()
        return session_id in self._database.tables.sessions

    async def _wait(self) -> None:
        await asyncio.sleep(self._world.rng.uniform(0.001, 0.02))
        if not self._database.up:
            raise StoreUnavailable("down")


class PersistenceProcess:
    """Persistence and its restarts."""

    identity = b"persistence"

    def __init__(self, world: World, fleet: BrokerFleet, database: Database) -> None:
        options = world.options
        self.alive = True
        self._world = world
        self._connections: dict[str, Connection] = {}
        """By the broker's place."""
        self._database = database
        self._slow_s = options.commit_s_max
        self._limits = Limits(
            batch_rows_max=options.batch_rows_max,
            batch_wait_s=0.05,
            pending_rows_max=options.pending_rows_max,
            pending_bytes_max=1 << 20,
        )
        self._sequences = count()
        self._life = 0
        self.subscribed_s = 0.0
        """Time of its last subscription."""
        self._fleet = fleet
        self._begin()
        fleet.attach(self)

    def connect(self, broker: BrokerProcess) -> None:
        if broker.place in self._connections:
            return
        connection = Connection(self._world, self, broker, "persistence")
        broker.take(connection)
        self._connections[broker.place] = connection
        self.connection_changed(connection)

    def connection_changed(self, connection: Connection) -> None:
        if self.alive:
            self.subscribed_s = self._world.now_s
            connection.broker.receive(SubscriptionChanged(b"", connection.connected))

    def receive(self, connection: Connection, message: m.Message) -> None:
        if not self.alive:
            return
        assert isinstance(message, m.PublishedResult | m.PublishedRecord)
        frames = publication.encode(next(self._sequences), message)
        reception = self.buffer.receive(frames, self._world.now_s, connection.broker.place)
        if reception.discarded not in (None, "repeated", "backlog_full"):
            raise InvariantError(6, f"persistence refuses {message}: {reception}")
        one_record = CHUNK_DETAILS_PER_RECORD
        if self.buffer.rows > max(self._limits.pending_rows_max, one_record):
            raise InvariantError(9, f"{self.buffer.rows} rows wait to be written")
        self._turn()

    def kill(self) -> None:
        if self.alive:
            self._world.note("persistence dies", "")
            self.alive = False
            self._life += 1
            for connection in self._connections.values():
                connection.broker.receive(SubscriptionChanged(b"", False))
            self._world.after(self._world.rng.uniform(0.1, 1.5), self._begin)

    # ------------------------------------------------------------------------------------ the loop

    def _begin(self) -> None:
        self.alive = True
        self.buffer = BatchBuffer(self._limits, "")
        self._writing = False
        for connection in self._connections.values():
            self.connection_changed(connection)
        if self._life:
            for broker in self._fleet.listed.values():  # It may have joined in the meantime.
                self.connect(broker)

    def _turn(self) -> None:
        if self._writing:
            return
        batch = self.buffer.take_batch(self._world.now_s)
        if batch is not None:
            self._writing = True
            self.write(batch)
            return
        due_s = self.buffer.batch_due_s()
        if due_s is not None:
            self._in_this_life(max(0.0, due_s - self._world.now_s) + 1e-6, self._turn)

    def write(self, batch: Batch) -> None:
        """The writer thread. A batch that reached the database may be committed after a kill."""
        life, rng = self._life, self._world.rng

        def attempt() -> None:
            died = life != self._life
            if died and rng.random() < 0.5:
                return
            if not self._database.up:
                self._world.after(RETRY_S, attempt)
                return
            superseded = self._database.commit(batch)
            if not died:
                self._in_this_life(rng.uniform(0.0, 0.01), lambda: self.confirm(batch, superseded))

        self._world.after(rng.uniform(0.001, self._slow_s), attempt)

    def confirm(self, batch: Batch, superseded: list[Entry]) -> None:
        """After COMMIT."""
        self._writing = False
        for place, stored in self.buffer.committed(batch, superseded):
            self._say(place, stored)
        self._turn()

    def _say(self, publisher: str, stored: m.Stored) -> None:
        connected = {place: each.connected for place, each in self._connections.items()}
        for place in routes_of(publisher, connected):
            self._connections[place].to_broker(Received("front", self.identity, stored))

    def _in_this_life(self, delay_s: float, act: Any) -> None:
        life = self._life
        self._world.after(delay_s, lambda: act() if life == self._life else None)
