"""One seed from beginning to end: phase 1 with faults, phase 2 without, then the final checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from broker.limits import STALE_HEAP_ENTRIES_MAX
from broker.routing import Broker
from tests.simulation.broker_host import BrokerHost, Plant
from tests.simulation.gateways import Clients, SimSession
from tests.simulation.options import ATTEMPT_DEADLINE_S, HEAL_S_MAX, LEASE_S
from tests.simulation.oracle import InvariantError
from tests.simulation.storage import StorageHost
from tests.simulation.workers import HANG_S, Supervisor
from tests.simulation.world import World
from wire import messages as m


def no_bug(_core: Broker) -> None:
    """The broker as it is."""


class ScheduleError(AssertionError):
    """A seed whose schedule broke an invariant; its text is all that is needed to look into it."""

    def __init__(self, text: str, seed: int, invariant: int) -> None:
        super().__init__(text)
        self.seed = seed
        self.invariant = invariant

    def __reduce__(self) -> tuple[type, tuple[str, int, int]]:
        """Tests run seeds in other processes."""
        return type(self), (str(self), self.seed, self.invariant)


def schedule_error(
    seed: int, world: World, violation: InvariantError, *, options: str = "", sessions: str = ""
) -> ScheduleError:
    text = (
        f"seed {seed}\noptions {world.options}\n{violation}\n"
        f"last events:\n{world.trace_text()}\n{sessions}"
        f"replay: python -m tests.simulation {options}--seed {seed} --trace"
    )
    return ScheduleError(text, seed, violation.invariant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a schedule went through, to see that seeds reach what they are meant to reach."""

    seed: int
    events: int
    counts: Counter[str]
    texts: int
    failures: int


def simulate(seed: int, plant: Plant = no_bug, *, echo: bool = False) -> Outcome:
    """Run one schedule.

    Raises:
        ScheduleError: when an invariant does not hold.
    """
    world = World(seed, echo=echo)
    world.note("options", str(world.options))
    try:
        return _Schedule(seed, world, plant).run()
    except InvariantError as violation:
        raise schedule_error(seed, world, violation, options="--routing ") from violation


class _Schedule:
    def __init__(self, seed: int, world: World, plant: Plant) -> None:
        self._seed = seed
        self._world = world
        self._broker = BrokerHost(world, plant)
        self._storage = StorageHost(world, self._broker)
        self._supervisor = Supervisor(world, self._broker)
        self._clients = Clients(world, self._broker)

    def run(self) -> Outcome:
        world = self._world
        self._plan_faults()
        world.run(world.options.fault_s)
        self._heal()
        world.run(world.now_s + HEAL_S_MAX, done=lambda: self._clients.complete)
        if not self._clients.complete:
            waiting = [s.waits_for for s in self._clients.sessions if not s.complete]
            raise InvariantError(12, f"unfinished: {waiting}")
        # What nobody waits for any more (abandoned attempts, silent peers) goes by its deadline.
        world.run(world.now_s + HANG_S + 2 * ATTEMPT_DEADLINE_S + 2 * LEASE_S)
        self._check_end()
        return self._outcome()

    # -------------------------------------------------------------------------------------- faults

    def _plan_faults(self) -> None:
        options = self._world.options
        storage, clients, broker = self._storage, self._clients, self._broker
        kinds: list[tuple[float, Callable[[], None]]] = [
            (options.worker_kills, self._on_worker("kill")),
            (options.worker_stops, self._on_worker("stop")),
            (options.worker_hangs, self._on_worker("hang")),
            (options.worker_byes, self._on_worker("bye")),
            (options.worker_lies, self._on_worker("lie")),
            (options.gateway_kills, clients.kill_gateway),
            (
                options.gateway_cuts,
                lambda: clients.pick_gateway().cut(self._world.rng.uniform(0.2, 3)),
            ),
            (options.broker_restarts, broker.kill),
            (options.broker_stops, broker.stop),
            (options.persistence_restarts, storage.restart),
            (options.cancels, lambda: clients.cancel(clients.pick_session())),
            (options.moves, lambda: clients.move(clients.pick_session())),
        ]
        for per_s, fault in kinds:
            self._repeat(per_s, fault)

    def _on_worker(self, what: str) -> Callable[[], None]:
        def fault() -> None:
            worker = self._supervisor.pick()
            if worker is not None and worker.alive:
                getattr(worker, what)()

        return fault

    def _repeat(self, per_s: float, fault: Callable[[], None]) -> None:
        """A Poisson process until the heal."""
        if per_s == 0:
            return

        def strike() -> None:
            if not self._world.healing:
                fault()
                self._repeat(per_s, fault)

        self._world.after(self._world.rng.expovariate(per_s), strike)

    def _heal(self) -> None:
        self._world.healing = True
        self._world.note("heal", "")
        self._broker.cont()
        for worker in self._supervisor.workers:
            worker.cont()
            if worker.liar:
                # It may be in quarantine, which has no end but its own.
                worker.kill()
        for gateway in self._clients.gateways:
            gateway.heal()

    # ------------------------------------------------------------------------------- final checks

    def _check_end(self) -> None:
        core = self._broker.core
        if core is None:
            raise InvariantError(12, "no broker")
        load, scheduler = core.load(), core.scheduler
        left = (len(scheduler.jobs), load.queued, load.queued_audio_ms, load.in_flight)
        if any(left) or any(worker.overdue for worker in scheduler.workers):
            raise InvariantError(12, f"left: jobs, queued, audio, in flight = {left}")
        registered = {worker.identity for worker in scheduler.workers if not worker.draining}
        alive = {worker.identity for worker in self._supervisor.workers if worker.alive}
        if registered != alive:
            raise InvariantError(12, f"workers {registered}, alive {alive}")
        gateways = {gateway.identity for gateway in self._clients.gateways}
        if set(core.gateways) != gateways:
            raise InvariantError(12, f"gateways {set(core.gateways)}, alive {gateways}")
        assert self._broker.oracle is not None
        self._broker.oracle.check_idle()
        if scheduler.bookkeeping_length > 4 * len(alive) + 3 * STALE_HEAP_ENTRIES_MAX:
            raise InvariantError(9, f"{scheduler.bookkeeping_length} entries for nothing")
        for session in self._clients.sessions:
            self._check_session(session)

    def _check_session(self, session: SimSession) -> None:
        for seq, result in session.results.items():
            row = self._storage.rows.get(("result", session.session_id, seq))
            if not isinstance(row, m.Result):
                continue
            if None not in (row.text, result.text) and row.text != result.text:
                raise InvariantError(4, f"{session.session_id}: row {row}, result {result}")

    def _outcome(self) -> Outcome:
        results = [r for session in self._clients.sessions for r in session.results.values()]
        assert self._broker.oracle is not None
        return Outcome(
            seed=self._seed,
            events=self._world.events,
            counts=self._broker.counts + self._broker.oracle.counts,
            texts=sum(result.text is not None for result in results),
            failures=sum(result.error is not None for result in results),
        )
