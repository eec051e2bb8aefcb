"""The faults of a schedule and their times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.simulation.broker_fleet import BrokerFleet
from tests.simulation.clients import SimClient
from tests.simulation.gateway_process import GatewayProcess
from tests.simulation.job_gateways import JobSessions
from tests.simulation.persistence_process import Database, PersistenceProcess
from tests.simulation.sessions import Sessions
from tests.simulation.worker_process import Supervisor
from tests.simulation.world import World

LAST_CHUNK_SHARE = 0.7
"""Share of last chunks of sessions that are followed by a fault."""
SOON_AGAIN_SHARE = 0.3
"""Share of faults that are followed by another one."""
LEAVE_SHARE = 0.5
"""Share of clients that leave when their gateway ends, if clients leave at all."""
NEAR_S = 2.0
"""Longest time to such a fault: about as long as a gateway waits for a finished session to be
stored."""

Fault = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Processes:
    """Faults of schedules with and without real gateways."""

    world: World
    fleet: BrokerFleet
    database: Database
    persistence: PersistenceProcess
    supervisor: Supervisor


class Faults:
    """Strikes at random times, and soon after other faults, until the heal."""

    def __init__(self, processes: Processes) -> None:
        self._world = processes.world
        self._fleet = processes.fleet
        self._database = processes.database
        self._persistence = processes.persistence
        self._supervisor = processes.supervisor
        self._kinds: list[Fault] = []

    def plan(self) -> None:
        kinds: dict[str, Fault] = {
            "worker_kills": self._on_worker("kill"),
            "worker_stops": self._on_worker("stop"),
            "worker_hangs": self._on_worker("hang"),
            "worker_byes": self._on_worker("bye"),
            "worker_lies": self._on_worker("lie"),
            **self._gateway_kinds(),
            "broker_restarts": lambda: self._fleet.pick().kill(),
            "broker_stops": lambda: self._fleet.pick().stop(),
            "persistence_restarts": self._persistence.kill,
            "database_outages": self._database.fail,
            **self._client_kinds(),
            "model_outages": self._supervisor.outage,
            "broker_ends": self._fleet.end,
            "broker_joins": self._fleet.join,
            "partitions": self._fleet.partition,
            "isolations": self._fleet.isolate,
        }
        rates = {name: getattr(self._world.options, name) for name in kinds}
        self._kinds = [fault for name, fault in kinds.items() if rates[name]]
        for name, fault in kinds.items():
            if rates[name]:
                self._repeat(rates[name], fault)

    def heal(self) -> None:
        self._world.healing = True
        self._world.note("heal", "")
        self._fleet.heal()
        self._database.heal()
        for worker in self._supervisor.workers:
            worker.cont()
            if worker.liar:
                # It may be quarantined, which lasts until it ends.
                worker.kill()

    def _gateway_kinds(self) -> dict[str, Fault]:
        raise NotImplementedError

    def _client_kinds(self) -> dict[str, Fault]:
        raise NotImplementedError

    def _on_worker(self, method: str) -> Fault:
        def fault() -> None:
            worker = self._supervisor.pick()
            if worker is not None and worker.alive:
                getattr(worker, method)()

        return fault

    # --------------------------------------------------------------------------------------- times

    def _repeat(self, rate: float, fault: Fault) -> None:
        """A Poisson process."""

        def strike() -> None:
            fault()
            self._repeat(rate, fault)
            if self._world.rng.random() < SOON_AGAIN_SHARE:
                self._near(self._world.rng.choice(self._kinds))

        self._after(self._world.rng.expovariate(rate), strike)

    def _near(self, fault: Fault) -> None:
        self._after(self._uniform(0.0, NEAR_S), fault)

    def _after(self, delay_s: float, fault: Fault) -> None:
        """Unless the heal is before."""
        self._world.after(delay_s, lambda: None if self._world.healing else fault())

    def _uniform(self, low: float, high: float) -> float:
        return self._world.rng.uniform(low, high)


class JobFaults(Faults):
    """For gateways that only send jobs."""

    def __init__(self, processes: Processes, sessions: JobSessions) -> None:
        super().__init__(processes)
        self._sessions = sessions

    def _gateway_kinds(self) -> dict[str, Fault]:
        sessions = self._sessions
        return {
            "gateway_kills": sessions.kill_gateway,
            "gateway_cuts": lambda: sessions.pick_gateway().cut(self._uniform(0.2, 3)),
        }

    def _client_kinds(self) -> dict[str, Fault]:
        sessions = self._sessions
        return {
            "cancels": lambda: sessions.cancel(sessions.pick_session()),
            "moves": lambda: sessions.move(sessions.pick_session()),
        }

    def heal(self) -> None:
        super().heal()
        for gateway in self._sessions.gateways:
            gateway.heal()


class SessionFaults(Faults):
    """For real gateways and clients. Strikes also at moments at which faults do the most damage."""

    def __init__(self, processes: Processes, sessions: Sessions) -> None:
        super().__init__(processes)
        self._sessions = sessions
        sessions.on_last_chunk = self._on_last_chunk

    def _gateway_kinds(self) -> dict[str, Fault]:
        return {
            "gateway_kills": lambda: self._kill_gateway(self._any_gateway()),
            "gateway_stops": self._stop_gateway,
            "gateway_drains": lambda: self._drain_gateway(self._any_gateway()),
            "gateway_cuts": lambda: self._any_gateway().cut(self._uniform(0.2, 3)),
        }

    def _client_kinds(self) -> dict[str, Fault]:
        return {
            "client_drops": self._drop_client,
            "client_clogs": self._clog_client,
            "client_leaves": lambda: self._any_client().leave(),
        }

    def heal(self) -> None:
        super().heal()
        for gateway in self._sessions.gateways:
            gateway.heal()
            gateway.loop.cont()
        for client in self._sessions.clients:
            if client.socket is not None:
                client.socket.unclog()

    def _on_last_chunk(self, client: SimClient) -> None:
        """Strike between the last results of a session and their commit."""
        options = self._world.options
        if self._world.rng.random() >= LAST_CHUNK_SHARE:
            return
        if options.gateway_kills:
            if options.persistence_restarts:
                self._after(self._uniform(0.0, 0.2), self._persistence.kill)
            self._near(lambda: self._kill_gateway(client.gateway))
        elif options.gateway_drains:
            self._near(lambda: self._drain_gateway(client.gateway))
            self._leave_soon(client)
        elif self._kinds:
            self._near(self._world.rng.choice(self._kinds))

    def _any_gateway(self) -> GatewayProcess:
        return self._world.rng.choice(self._sessions.gateways)

    def _any_client(self) -> SimClient:
        return self._world.rng.choice(self._sessions.clients)

    def _kill_gateway(self, gateway: GatewayProcess | None) -> None:
        if gateway is not None and gateway.alive:
            gateway.kill()
            self._world.after(self._uniform(0.1, 1.0), lambda: self._sessions.replace(gateway))

    def _drain_gateway(self, gateway: GatewayProcess | None) -> None:
        if gateway is None or not gateway.alive:
            return
        gateway.terminate()
        self._sessions.replace(gateway)
        for client in self._sessions.clients:
            if client.gateway is gateway:
                self._leave_soon(client)
        if self._world.options.database_outages and self._world.rng.random() < 0.5:
            self._database.fail()

    def _leave_soon(self, client: SimClient) -> None:
        """Only the gateway that ends then has the client's audio."""
        if self._world.options.client_leaves and self._world.rng.random() < LEAVE_SHARE:
            self._after(self._uniform(0.0, 1.0), client.leave)

    def _stop_gateway(self) -> None:
        gateway = self._any_gateway()
        gateway.stop()
        for client in self._sessions.clients:
            if client.socket in gateway._sockets and self._world.rng.random() < 0.7:
                # Its pings are not answered.
                disconnect = partial(client.drop, self._uniform(0.0, 8.0))
                self._world.after(self._uniform(0.2, 1.5), disconnect)

    def _drop_client(self) -> None:
        late = self._world.rng.random() < 0.4
        self._any_client().drop(self._uniform(2.0, 8.0) if late else self._uniform(0.0, 0.1))

    def _clog_client(self) -> None:
        client, rng = self._any_client(), self._world.rng
        if client.socket is not None:
            up = rng.random() < 0.6
            client.socket.clog(self._uniform(0.2, 4.0), up=up, down=not up or rng.random() < 0.5)
            if rng.random() < 0.5:
                delay_s = self._uniform(0.1, 2.0)
                self._world.after(delay_s, lambda: client.drop(self._uniform(0.0, 4.0)))
