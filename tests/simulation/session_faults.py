"""What happens to the parties of a schedule of whole sessions, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.broker_host import BrokerHost
from tests.simulation.clients import SimClient
from tests.simulation.gateway_process import GatewayProcess
from tests.simulation.persistence_process import Database, PersistenceProcess
from tests.simulation.session_options import SessionOptions
from tests.simulation.workers import Supervisor
from tests.simulation.world import World

LAST_CHUNK_SHARE = 0.7
"""Of the sessions' last chunks, those with a fault near."""
SOON_AGAIN_SHARE = 0.3
"""Of faults, those with another near."""
LEAVE_SHARE = 0.5
"""Of clients whose gateway ends, where clients leave at all, those that leave as well."""
NEAR_S = 2.0
"""About as long as a gateway waits for a finished session to be stored."""

Fault = Callable[[], None]


@dataclass(kw_only=True)
class SessionFaults:
    """At random times, and near the moments at which a fault hurts more than at others."""

    world: World
    options: SessionOptions
    broker: BrokerHost
    database: Database
    buffer: PersistenceProcess
    supervisor: Supervisor
    gateways: list[GatewayProcess]
    clients: list[SimClient]
    new_gateway: Callable[[], GatewayProcess]
    _kinds: list[Fault] = field(default_factory=list)

    def plan(self) -> None:
        options = self.options
        kinds: list[tuple[float, Fault]] = [
            (options.worker_kills, self._on_worker("kill")),
            (options.worker_stops, self._on_worker("stop")),
            (options.worker_hangs, self._on_worker("hang")),
            (options.worker_byes, self._on_worker("bye")),
            (options.gateway_kills, lambda: self._kill_gateway(self._any_gateway())),
            (options.gateway_stops, self._stop_gateway),
            (options.gateway_drains, lambda: self._drain_gateway(self._any_gateway())),
            (options.gateway_cuts, lambda: self._any_gateway().cut(self._uniform(0.2, 3))),
            (options.broker_restarts, self.broker.kill),
            (options.broker_stops, self.broker.stop),
            (options.persistence_restarts, self.buffer.kill),
            (options.database_outages, self.database.fail),
            (options.client_drops, self._drop_client),
            (options.client_clogs, self._clog_client),
            (options.client_leaves, lambda: self._any_client().leave()),
        ]
        self._kinds = [fault for per_s, fault in kinds if per_s]
        for per_s, fault in kinds:
            if per_s:
                self._repeat(per_s, fault)

    def on_last_chunk(self, client: SimClient) -> None:
        """What a gateway tells last, and what is stored then, is hit between the two."""
        options = self.options
        if self.world.rng.random() >= LAST_CHUNK_SHARE:
            return
        if options.gateway_kills:
            if options.persistence_restarts:
                self._after(self._uniform(0.0, 0.2), self.buffer.kill)
            self._near(lambda: self._kill_gateway(client.gateway))
        elif options.gateway_drains:
            self._near(lambda: self._drain_gateway(client.gateway))
            self._leave_soon(client)
        elif self._kinds:
            self._near(self.world.rng.choice(self._kinds))

    def heal(self) -> None:
        self.world.healing = True
        self.world.note("heal", "")
        self.broker.cont()
        self.database.heal()
        for worker in self.supervisor.workers:
            worker.cont()
        for gateway in self.gateways:
            gateway.heal()
            gateway.loop.cont()
        for client in self.clients:
            if client.socket is not None:
                client.socket.unclog()

    # ---------------------------------------------------------------------------------------- when

    def _repeat(self, per_s: float, fault: Fault) -> None:
        def strike() -> None:
            fault()
            self._repeat(per_s, fault)
            if self.world.rng.random() < SOON_AGAIN_SHARE:
                self._near(self.world.rng.choice(self._kinds))

        self._after(self.world.rng.expovariate(per_s), strike)

    def _near(self, fault: Fault) -> None:
        self._after(self._uniform(0.0, NEAR_S), fault)

    def _after(self, delay_s: float, fault: Fault) -> None:
        """Unless it heals before."""
        self.world.after(delay_s, lambda: None if self.world.healing else fault())

    def _uniform(self, low: float, high: float) -> float:
        return self.world.rng.uniform(low, high)

    # ---------------------------------------------------------------------------------------- what

    def _any_gateway(self) -> GatewayProcess:
        return self.world.rng.choice(self.gateways)

    def _any_client(self) -> SimClient:
        return self.world.rng.choice(self.clients)

    def _on_worker(self, what: str) -> Fault:
        def fault() -> None:
            worker = self.supervisor.pick()
            if worker is not None and worker.alive:
                getattr(worker, what)()

        return fault

    def _kill_gateway(self, gateway: GatewayProcess | None) -> None:
        if gateway is not None and gateway.alive:
            gateway.kill()
            self.world.after(self._uniform(0.1, 1.0), lambda: self._replace(gateway))

    def _drain_gateway(self, gateway: GatewayProcess | None) -> None:
        if gateway is None or not gateway.alive:
            return
        gateway.terminate()
        self._replace(gateway)
        for client in self.clients:
            if client.gateway is gateway:
                self._leave_soon(client)
        if self.options.database_outages and self.world.rng.random() < 0.5:
            self.database.fail()

    def _leave_soon(self, client: SimClient) -> None:
        """What it has said is then nobody's but the gateway's that ends."""
        if self.options.client_leaves and self.world.rng.random() < LEAVE_SHARE:
            self._after(self._uniform(0.0, 1.0), client.leave)

    def _replace(self, gateway: GatewayProcess) -> None:
        """By its supervisor."""
        if gateway.alive:
            self.world.after(0.2, lambda: self._replace(gateway))
        elif gateway in self.gateways:
            self.gateways[self.gateways.index(gateway)] = self.new_gateway()

    def _stop_gateway(self) -> None:
        gateway = self._any_gateway()
        gateway.stop()
        for client in self.clients:
            if client.socket in gateway._sockets and self.world.rng.random() < 0.7:
                # Its pings are not answered.
                cut_off = partial(client.drop, self._uniform(0.0, 8.0))
                self.world.after(self._uniform(0.2, 1.5), cut_off)

    def _drop_client(self) -> None:
        late = self.world.rng.random() < 0.4
        self._any_client().drop(self._uniform(2.0, 8.0) if late else self._uniform(0.0, 0.1))

    def _clog_client(self) -> None:
        client, rng = self._any_client(), self.world.rng
        if client.socket is not None:
            up = rng.random() < 0.6
            client.socket.clog(self._uniform(0.2, 4.0), up=up, down=not up or rng.random() < 0.5)
            if rng.random() < 0.5:
                delay_s = self._uniform(0.1, 2.0)
                self.world.after(delay_s, lambda: client.drop(self._uniform(0.0, 4.0)))
