"""One seed from beginning to end: phase 1 with faults, phase 2 without, and the final checks."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from broker.limits import STALE_HEAP_ENTRIES_MAX
from tests.broker.invariants import bookkeeping_length
from tests.simulation.broker_fleet import BrokerFleet
from tests.simulation.broker_process import BrokerProcess
from tests.simulation.faults import Faults, JobFaults, Processes, SessionFaults
from tests.simulation.job_gateways import JobSessions
from tests.simulation.options import ATTEMPT_DEADLINE_S, LEASE_S
from tests.simulation.oracle import InvariantError
from tests.simulation.persistence_process import Database, PersistenceProcess
from tests.simulation.sessions import Sessions
from tests.simulation.worker_process import HANG_S, Supervisor
from tests.simulation.world import World

Plant = Callable[[], contextlib.AbstractContextManager[object]]
"""Puts a bug into the real code while a schedule runs."""
HEAL_S_MAX = 90.0
"""Everything must have ended by then, counted from the end of the faults."""
QUIET_S = HANG_S + 2 * ATTEMPT_DEADLINE_S + 2 * LEASE_S
"""By then abandoned attempts and the leases of silent peers have ended."""
STEP_S = 0.5


class ScheduleError(AssertionError):
    """A schedule broke an invariant. The text has all that is needed to look into it."""

    def __init__(self, text: str, seed: int, invariant: int) -> None:
        super().__init__(text)
        self.seed = seed
        self.invariant = invariant

    def __reduce__(self) -> tuple[type, tuple[str, int, int]]:
        """Tests run seeds in other processes."""
        return type(self), (str(self), self.seed, self.invariant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The events of a schedule, by which tests check that the seeds reach every kind of fault."""

    seed: int
    events: int
    counts: Counter[str]
    texts: int
    failures: int


def simulate(
    seed: int,
    plant: Plant = contextlib.nullcontext,
    *,
    real_gateways: bool = True,
    faults: Mapping[str, float] = MappingProxyType({}),
    echo: bool = False,
) -> Outcome:
    """Run one schedule. ``faults`` replace rates of the seed's options.

    Without real gateways a schedule takes a fraction of the time, and exercises the broker with
    more jobs (see ``job_gateways``).

    Raises:
        ScheduleError: when an invariant does not hold.
    """
    world = World(seed, real_gateways=real_gateways, faults=faults, echo=echo)
    world.note("options", str(world.options))
    with plant():
        schedule = _Schedule(seed, world)
        try:
            return schedule.run()
        except InvariantError as violation:
            option = "" if real_gateways else "--without-gateways "
            text = (
                f"seed {seed}\noptions {world.options}\n{violation}\n"
                f"last events:\n{world.trace_text()}\n"
                f"{schedule.sessions.recordings(str(violation))}"
                f"replay: python -m tests.simulation {option}--seed {seed} --trace"
            )
            raise ScheduleError(text, seed, violation.invariant) from violation


class _Schedule:
    def __init__(self, seed: int, world: World) -> None:
        self._seed = seed
        self._world = world
        self._fleet = BrokerFleet(world)
        self._database = Database(world, lambda *row: self.sessions.check_row(*row))
        self._persistence = PersistenceProcess(world, self._fleet, self._database)
        self._supervisor = Supervisor(world, self._fleet)
        processes = Processes(
            world, self._fleet, self._database, self._persistence, self._supervisor
        )
        self.sessions: Sessions | JobSessions
        self._faults: Faults
        if world.options.real_gateways:
            self.sessions = Sessions(world, self._fleet, self._database, self._persistence)
            self._faults = SessionFaults(processes, self.sessions)
        else:
            self.sessions = JobSessions(world, self._fleet, self._database)
            self._faults = JobFaults(processes, self.sessions)

    def run(self) -> Outcome:
        world = self._world
        with self.sessions.running():
            self._faults.plan()
            self._run(world.options.fault_s)
            self._faults.heal()
            self._run(world.now_s + HEAL_S_MAX, done=lambda: not self._left())
            if left := self._left():
                raise InvariantError(12, f"unfinished: {left}")
            self._run(world.now_s + QUIET_S)
            self._check_end()
            return self._outcome()

    def _run(self, until_s: float, done: Callable[[], bool] = lambda: False) -> None:
        """In steps, because ``done`` is too slow to be called after each event."""
        world = self._world
        while world.now_s < until_s and not done():
            world.run(min(until_s, world.now_s + STEP_S))
            self.sessions.check()

    def _left(self) -> str:
        left = self.sessions.left()
        if rows := self._persistence.buffer.rows:
            left.append(f"{rows} rows are not committed")
        for broker in self._fleet.whole:
            if broker.core is None or len(broker.core.scheduler.jobs):
                left.append(f"{broker.place} has jobs")
        return "; ".join(left)

    def _check_end(self) -> None:
        if left := self._left():
            raise InvariantError(12, f"left: {left}")
        for broker in self._fleet.whole:
            self._check_broker(broker)
        self.sessions.check_end()

    def _check_broker(self, broker: BrokerProcess) -> None:
        core, oracle = broker.core, broker.oracle
        assert core is not None and oracle is not None
        load, scheduler = core.load(), core.scheduler
        idle = (load.queued, load.queued_audio_ms, load.in_flight) == (0, 0, 0)
        if not idle or any(worker.overdue for worker in scheduler.models.workers):
            raise InvariantError(12, f"left: {load}")
        models = scheduler.models
        registered = {worker.identity for worker in models.workers if not worker.draining}
        workers = {worker.identity for worker in self._supervisor.workers if worker.alive}
        if registered != workers:
            raise InvariantError(12, f"workers {registered}, alive {workers}")
        gateways = {gateway.identity for gateway in self.sessions.gateways}
        if set(core.gateways) != gateways:
            raise InvariantError(12, f"gateways {set(core.gateways)}, alive {gateways}")
        oracle.check_idle()
        entries = bookkeeping_length(scheduler)
        if entries > 4 * len(workers) + 3 * len(models) * STALE_HEAP_ENTRIES_MAX:
            raise InvariantError(9, f"{entries} entries without jobs")

    def _outcome(self) -> Outcome:
        counts = self._fleet.counts
        counts.update(self.sessions.counts)
        counts["stale_rows"] += self._database.tables.stale_rows
        texts = self.sessions.texts
        return Outcome(
            seed=self._seed,
            events=self._world.events,
            counts=counts,
            texts=sum(text is not None for text in texts),
            failures=texts.count(None),
        )
