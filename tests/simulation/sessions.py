"""One seed of whole sessions: the real cores of clients, gateways, broker, workers and persistence
together. Phase 1 with faults, phase 2 without, then the final checks."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random

from gateway.session.transcript import join_texts
from persistence.batch_buffer import Batch, Entry
from tests.simulation.broker_host import BrokerHost
from tests.simulation.clients import SimClient
from tests.simulation.gateway_process import GatewayProcess, settings_of, simulated
from tests.simulation.options import ATTEMPT_DEADLINE_S, LEASE_S
from tests.simulation.oracle import InvariantError
from tests.simulation.persistence_process import Database, PersistenceProcess
from tests.simulation.recording import RecordedSession
from tests.simulation.schedule import Outcome, no_bug, schedule_error
from tests.simulation.session_faults import SessionFaults
from tests.simulation.session_options import SessionOptions
from tests.simulation.speech import without_accent
from tests.simulation.workers import HANG_S, Supervisor
from tests.simulation.world import World
from wire.records import SegmentCopy

SessionPlant = Callable[[], contextlib.AbstractContextManager[object]]
"""Puts a bug into the real code while a schedule runs."""
HEAL_S_MAX = 90.0
QUIET_S = HANG_S + 2 * ATTEMPT_DEADLINE_S + 2 * LEASE_S
NOWHERE = Path("/nonexistent")


def simulate_sessions(
    seed: int, plant: SessionPlant = contextlib.nullcontext, *, echo: bool = False
) -> Outcome:
    """Run one schedule.

    Raises:
        ScheduleError: when an invariant does not hold.
    """
    drawn: list[SessionOptions] = []

    def draw(rng: Random) -> SessionOptions:
        drawn.append(SessionOptions.draw(rng))
        return drawn[0]

    world = World(seed, echo=echo, draw=draw)
    world.note("options", str(world.options))
    schedule = _SessionSchedule(seed, world, drawn[0])
    try:
        with plant(), schedule.running():
            return schedule.run()
    except InvariantError as violation:
        raise schedule_error(
            seed, world, violation, sessions=schedule.recordings(str(violation))
        ) from violation


class _CheckedDatabase(Database):
    """Looks at each row as it is committed."""

    def __init__(self, world: World, check: Callable[[str, SegmentCopy], None]) -> None:
        super().__init__(world)
        self._check = check

    def commit(self, batch: Batch) -> list[Entry]:
        for entry in batch.entries:
            if isinstance(entry.body, SegmentCopy):
                self._check(entry.session_id, entry.body)
        return super().commit(batch)


class _SessionSchedule:
    def __init__(self, seed: int, world: World, options: SessionOptions) -> None:
        self._seed = seed
        self._world = world
        self._options = options
        self._names = count(1)
        self._failure: InvariantError | None = None
        self._all: list[GatewayProcess] = []
        self._clients: list[SimClient] = []
        self._sessions: list[RecordedSession] = []
        self._claimed_for_nobody = 0
        """Sessions that are the weakness described at ``_is_claimed_for_nobody``."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        world, options = self._world, self._options
        with contextlib.ExitStack() as stack:
            directory = NOWHERE
            if options.gateway_drains:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._sessions = stack.enter_context(simulated(world, self._fail))
            stack.callback(self._dispose)
            self._settings = settings_of(options.resume_wait_s, directory)
            self._broker = BrokerHost(world, no_bug, tells_load=True)
            self._database = _CheckedDatabase(world, self._check_row)
            self._buffer = PersistenceProcess(world, self._broker, self._database, options)
            self._supervisor = Supervisor(world, self._broker)
            self._gateways = [self._new_gateway() for _ in range(options.gateways)]
            self._faults = SessionFaults(
                world=world,
                options=options,
                broker=self._broker,
                database=self._database,
                buffer=self._buffer,
                supervisor=self._supervisor,
                gateways=self._gateways,
                clients=self._clients,
                new_gateway=self._new_gateway,
            )
            self._clients += [
                SimClient(
                    world,
                    options,
                    f"client-{index}",
                    self._pick_gateway,
                    self._check_stored,
                    said_all=self._faults.on_last_chunk,
                    heard=self._broker.heard,
                )
                for index in range(options.sessions)
            ]
            yield

    def recordings(self, violation: str) -> str:
        """The events of the sessions of a client that ``violation`` names, one list for each
        gateway that had the session."""
        ids = {
            session_id
            for client in self._clients
            for session_id in client.session_ids
            if client.name in violation
        }
        found = [session for session in self._sessions if session.session_id in ids]
        return "".join(f"events of {each.session_id}:\n{each.recording()}\n" for each in found)

    def run(self) -> Outcome:
        world = self._world
        self._faults.plan()
        self._run(self._options.fault_s)
        self._faults.heal()
        self._run(world.now_s + HEAL_S_MAX, done=lambda: not self._left())
        if left := self._left():
            raise InvariantError(12, f"unfinished: {left}")
        # What nobody waits for any more (abandoned attempts, silent peers) goes by its deadline.
        self._run(world.now_s + QUIET_S)
        self._check_end()
        return self._outcome()

    def _dispose(self) -> None:
        for gateway in self._all:
            gateway.server.spool.close()
            gateway.loop.dispose()

    def _run(self, until_s: float, done: Callable[[], bool] = lambda: False) -> None:
        """In steps, because what is left is not looked for after each event."""
        world = self._world
        while world.now_s < until_s and not done():
            world.run(min(until_s, world.now_s + 0.5))
            if self._failure is not None:
                raise self._failure
            for gateway in self._gateways:
                gateway.check_limits()

    def _fail(self, error: BaseException | str) -> None:
        """Asyncio keeps what callbacks raise for itself."""
        violation = error if isinstance(error, InvariantError) else None
        if self._failure is None:
            self._failure = violation or InvariantError(6, f"a gateway fails: {error!r}")

    def _pick_gateway(self) -> GatewayProcess:
        """Where a new connection arrives: the socket is shared by those that still accept."""
        open_ones = [g for g in self._gateways if g.alive and not g.server.gate.draining]
        return self._world.rng.choice(open_ones or self._gateways)

    def _new_gateway(self) -> GatewayProcess:
        name = f"gateway-{next(self._names)}"
        gateway = GatewayProcess(
            self._world,
            self._broker,
            self._database,
            self._settings,
            name,
            self._options.detect_s_max,
        )
        self._all.append(gateway)
        return gateway

    # ------------------------------------------------------------------------------- final checks

    def _left(self) -> str:
        waiting = [
            f"{client.session_id} is not over" for client in self._clients if not client.over
        ]
        for gateway in self._gateways:
            if not gateway.alive:
                waiting.append(f"{gateway.identity.decode()} is dead")
            elif left := gateway.left():
                waiting.append(f"{gateway.identity.decode()} has {left}")
        if self._buffer.buffer.rows:
            waiting.append(f"{self._buffer.buffer.rows} rows are to be written")
        core = self._broker.core
        if core is None or len(core.scheduler.jobs):
            waiting.append("the broker has jobs")
        return "; ".join(waiting)

    def _check_row(self, session_id: str, row: SegmentCopy) -> None:
        """Of a client's own audio, at its place; and only the last may be cut short."""
        client = next(c for c in self._clients if session_id in c.session_ids)
        if row.provisional:
            return
        segments = client.speech.segments
        said = segments[row.seq] if row.seq < len(segments) else None
        known = said is not None and (row.start_ms, row.end_ms) == (said.start_ms, said.end_ms)
        if known and row.failure is not None:
            return
        if not known or said is None or without_accent(row.segment_text) != said.text:
            raise InvariantError(1, f"{session_id} has row {row} and said {said}")

    def _check_end(self) -> None:
        if left := self._left():
            raise InvariantError(12, f"left: {left}")
        core = self._broker.core
        assert core is not None
        registered = {worker.identity for worker in core.scheduler.workers if not worker.draining}
        alive = {worker.identity for worker in self._supervisor.workers if worker.alive}
        if registered != alive:
            raise InvariantError(12, f"workers {registered}, alive {alive}")
        assert self._broker.oracle is not None
        self._broker.oracle.check_idle()
        if files := [*self._settings.data_dir.glob("spool/*.spool")]:
            raise InvariantError(12, f"left: {files}")
        for client in self._clients:
            self._check_client(client)
            if client.left and not any(gateway.killed for gateway in client.gateways):
                self._check_abandoned(client)
        if any(gateway.killed for gateway in self._all):
            return  # What it had not sent is lost, unless its client comes back.
        gone = {client.session_id for client in self._clients if client.left}
        for session_id, row in self._database.tables.sessions.items():
            # One that was claimed, and whose client left, is marked lost by the sweep.
            let_go = bool(row.generation) or (
                session_id in gone and session_id in self._broker.claimed
            )
            if row.status == "active" and not let_go:
                raise InvariantError(12, f"{session_id} is active for ever")

    def _check_stored(self, client: SimClient) -> None:
        try:
            # Which of two texts stays when workers spell differently may be settled a moment later.
            self._check_rows(client, exactly=False)
        except InvariantError as error:
            raise InvariantError(3, f"told to be stored: {error}") from error

    def _check_client(self, client: SimClient) -> None:
        if client.final is None:
            return
        row = self._database.tables.sessions.get(client.session_id)
        owner = row.gateway_id.encode() if row is not None else b""
        if not client.final.stored and any(
            gateway.killed and (gateway is client.gateway or gateway.identity == owner)
            for gateway in self._all
        ):
            return  # It was not said to be stored, and only the killed one could still store it.
        if self._is_claimed_for_nobody(client):
            return
        # If not told to be stored, it may have come back to a gateway that had lost the session,
        # and did not know yet.
        self._check_rows(client, exactly=client.final.stored)

    def _check_abandoned(self, client: SimClient) -> None:
        """What a client was told before it left for good is stored, and so is what it was told to
        be received, unless a gateway has claimed the session since, and told it nothing, or one
        was ended before workers had done with it."""
        if self._is_claimed_for_nobody(client):
            return
        rows = self._database.tables.segments.get(client.session_id, {})
        for index, text in enumerate(client.told):
            row = rows.get(index)
            if row is None or (text and without_accent(row["text"] or "") != without_accent(text)):
                raise InvariantError(1, f"{client.session_id} was told {text}, stored {row}")
        if len(rows) >= client.utterances_acknowledged:
            return
        _, generation = client.served_by
        known = self._database.tables.sessions.get(client.session_id)
        claimed = self._broker.claimed.get(client.session_id, 0)
        if max(claimed, known.generation if known is not None else 0) > generation:
            self._claimed_for_nobody += 1
        elif not any(client.session_id in gateway.cut_short for gateway in client.gateways):
            raise InvariantError(1, f"{client.session_id} said more than {sorted(rows)}")

    def _is_claimed_for_nobody(self, client: SimClient) -> bool:
        """A gateway claimed the session and never told its client anything, which was gone by then.
        What the gateway before it had told, and not stored, was refused as of an older generation.
        That is not promised (docs/reliability.md), but only this: never for what was told to be
        stored, and what is there has to be what was told."""
        tables, session_id = self._database.tables, client.session_id
        row = tables.sessions.get(session_id)
        if row is None or not row.generation:
            return False
        served_by, generation = client.served_by
        if row.gateway_id.encode() == served_by and row.generation <= generation:
            return False
        if client.final is not None and client.final.stored:
            return False
        rows = tables.segments.get(session_id, {})
        missing = {(session_id, index) for index in range(len(client.told)) if index not in rows}
        without_end = client.final is not None and session_id in tables.stale_ends
        if not (missing or without_end) or not missing <= tables.stale_segments:
            return False
        for index, text in enumerate(client.told):
            stored = rows[index]["text"] if index in rows else text
            if without_accent(stored or "") != without_accent(text or ""):
                return False
        self._claimed_for_nobody += 1
        return True

    def _check_rows(self, client: SimClient, *, exactly: bool) -> None:
        assert client.final is not None
        tables, session_id = self._database.tables, client.session_id
        row, segments = tables.sessions.get(session_id), tables.segments.get(session_id, {})
        if row is None or row.status not in ("completed", "failed"):
            raise InvariantError(1, f"{session_id} was finished and is {row}")
        if sorted(segments) != list(range(len(client.speech.segments))):
            raise InvariantError(1, f"{session_id} has rows {sorted(segments)}")
        rows = [segments[index] for index in sorted(segments)]
        if any(segment["provisional"] for segment in rows):
            raise InvariantError(1, f"{session_id} has provisional rows")
        stored = join_texts(segment["text"] or "" for segment in rows)
        told = client.final.text
        if not exactly:
            told, stored = without_accent(told), without_accent(stored)
        # A killed gateway may have stored the end, and not the copy that it made of a text.
        whole = exactly and not any(gateway.killed for gateway in client.gateways)
        text = row.text if whole else without_accent(row.text or "")
        if told != stored or (exactly and text != (stored if whole else without_accent(stored))):
            raise InvariantError(1, f"{session_id}: told {client.final}, stored {row} {stored}")

    def _outcome(self) -> Outcome:
        assert self._broker.oracle is not None
        counts = Counter(self._broker.counts + self._broker.oracle.counts)
        statuses = [row.status for row in self._database.tables.sessions.values()]
        counts.update(statuses)
        counts["claimed_for_nobody"] += self._claimed_for_nobody
        counts["stale_rows"] += self._database.tables.stale_rows
        counts["taken_over"] += sum(
            row.generation > 0 for row in self._database.tables.sessions.values()
        )
        told = [text for client in self._clients for text in client.told]
        return Outcome(
            seed=self._seed,
            events=self._world.events,
            counts=counts,
            texts=sum(text is not None for text in told),
            failures=told.count(None),
        )
