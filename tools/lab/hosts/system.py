"""A system on nine hosts, with keys on the bus: two gateways, a broker, three workers, persistence,
PostgreSQL and Redis; or on ten, with two brokers. Clients are on another one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from tools.lab.chaos.system import GAUGES_AT_REST
from tools.lab.harness import metrics
from tools.lab.harness.servers import PostgresServer, RedisServer
from tools.lab.harness.stack import Stack, wait_until
from tools.lab.hosts.network import Host, Network
from wire import keys

BROKERS: Final = ("broker", "broker2")
"""One of them, or both."""
GATEWAYS: Final = ("gateway", "gateway2")
WORKERS: Final = ("asr_worker", "asr_worker2", "asr_worker3")
SERVERS: Final = ("postgres", "redis")
HTTP_PORT: Final = 8080
METRICS_PORT: Final = 9100
POSTGRES_PORT: Final = 5432
REDIS_PORT: Final = 6379
BUS_PORTS: Final = {"BROKER_FRONTEND": 7101, "BROKER_BACKEND": 7102, "BROKER_EVENTS": 7103}
READY_S_MAX: Final = 300.0
"""Three workers that load at once on few processors take long."""
CAPTURE: Final = "bus.frames"


class System(Stack):
    """Use it as a context manager, on the thread that starts every process."""

    def __init__(
        self, directory: Path, network: Network, *, with_keys: bool = True, brokers: int = 1
    ) -> None:
        self.brokers = BROKERS[:brokers]
        self.names = (*self.brokers, *WORKERS, "persistence", *GATEWAYS)
        """Hosts with a process of ours, in the order of their start."""
        self._undo = contextlib.ExitStack()
        self.capture = directory / CAPTURE
        """All frames on the links of brokers, one after the other."""
        capture = self._undo.enter_context(self.capture.open("wb", buffering=1 << 20))
        self._flush = capture.flush
        self.hosts: dict[str, Host] = {}
        self.cables = []
        for name in self.brokers:
            self.hosts[name], cable = network.add_with_cable(name, capture)
            self.cables.append(cable)
            self._undo.callback(cable.close)
        for name in (*self.names, *SERVERS):
            if name not in self.brokers:
                self.hosts[name] = network.add(name)
        self._postgres = PostgresServer(
            directory / "postgres",
            self.hosts["postgres"].address,
            POSTGRES_PORT,
            prefix=self.hosts["postgres"].prefix,
        )
        self._redis = RedisServer(
            directory / "redis",
            self.hosts["redis"].address,
            REDIS_PORT,
            prefix=self.hosts["redis"].prefix,
        )
        settings = {
            "HOST": "0.0.0.0",
            "PORT": str(HTTP_PORT),
            "ALLOW_PUBLIC_WITHOUT_AUTH": "true",
            "METRICS_HOST": "0.0.0.0",
            "METRICS_PORT": str(METRICS_PORT),
            "MAX_CONNECTIONS": "1000",
            "DATABASE_URL": self._postgres.url,
            "REDIS_URL": self._redis.url,
            **self._endpoints(*self.brokers),
        }
        if not with_keys:
            settings["ALLOW_PUBLIC_BUS"] = "true"
        else:
            keys.generate(directory / "keys")
            settings["BUS_KEYS_DIR"] = str(directory / "keys")
        super().__init__(settings, directory=directory)

    def __enter__(self) -> System:
        try:
            self._undo.enter_context(self._postgres)
            self._undo.enter_context(self._redis)
            for name in self.names:
                self.start(name)
            self.wait_all_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        super().stop()
        self._undo.close()

    def settings_of(self, name: str) -> dict[str, str]:
        """Each host has a disk of its own, and each broker its own endpoints."""
        own = self._endpoints(name) if name in self.brokers else {}
        return {**self.environment, **own, "DATA_DIR": str(self.data / name)}

    def _endpoints(self, *brokers: str) -> dict[str, str]:
        addresses = [self.hosts[name].address for name in brokers]
        return {
            setting: ",".join(f"tcp://{address}:{port}" for address in addresses)
            for setting, port in BUS_PORTS.items()
        }

    def prefix_of(self, name: str) -> Iterable[str]:
        return self.hosts[name].prefix

    # ------------------------------------------------------------------------------------ observing

    def captured(self) -> bytes:
        """Everything on the links of brokers so far."""
        self._flush()
        return self.capture.read_bytes()

    def url(self, gateway: str = "gateway") -> str:
        return f"ws://{self.hosts[gateway].address}:{HTTP_PORT}/ws/asr"

    def http_url(self, gateway: str = "gateway") -> str:
        return f"http://{self.hosts[gateway].address}:{HTTP_PORT}"

    def wait_all_ready(self) -> None:
        """Wait until both gateways see all workers, at each broker, and PostgreSQL.

        Raises:
            AssertionError: if that takes too long.
        """
        for gateway in GATEWAYS:
            self.wait_ready(gateway, workers=len(WORKERS), timeout_s=READY_S_MAX)
            wait_until(partial(self._reaches_all, gateway), "all brokers", READY_S_MAX)

    def _reaches_all(self, gateway: str) -> bool:
        answer = self.get("/api/v1/health", gateway)
        live = [each["workers"] for each in answer.body["brokers"] if each["live"]]
        return live == [len(WORKERS)] * len(self.brokers)

    def gauges(self) -> dict[str, float]:
        """Gauges that are zero at rest, by their names and hosts."""
        return {
            f"{name} on {host}": value
            for host in (*self.brokers, *GATEWAYS)
            for name in GAUGES_AT_REST
            for value in self.metrics_of(host).each(name).values()
        }

    def metrics_of(self, name: str) -> metrics.Metrics:
        """The metrics of one host's process."""
        kind = name.rstrip("0123456789")
        return metrics.scrape(METRICS_PORT, [kind], self.hosts[name].address)
