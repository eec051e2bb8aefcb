"""The system under test: two gateways on one port, broker, two workers, persistence, and embedded
services, with a relay on every link. A second broker has no relays."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final
from urllib.parse import quote

from runtime.run_directory import run_directory
from tools.lab.chaos import disks, sabotage
from tools.lab.chaos.proxy import Address, Proxy
from tools.lab.harness import database
from tools.lab.harness.ports import free_port, free_range
from tools.lab.harness.process import ROOT
from tools.lab.harness.stack import Stack

WORKERS: Final = 2
GATEWAYS: Final = 2
GAUGES_AT_REST: Final = (
    "asr_gateway_connections",
    "asr_gateway_outbox_records",
    "asr_broker_queued_jobs",
)
DATA_DISK_BYTES: Final = 768 << 20
LOG_DISK_BYTES: Final = 64 << 20


class System(Stack):
    """Use it as a context manager, on the thread that starts every process. With ``small_disks``
    logs and data are on small disks of their own if this host allows mounting;
    ``no_small_disks`` holds the reason if it does not. There are one or two ``brokers``."""

    def __init__(self, directory: Path, *, small_disks: bool = False, brokers: int = 1) -> None:
        assert brokers in (1, 2)
        self.brokers = brokers
        self.orders = directory / "orders"
        self.undo = contextlib.ExitStack()
        """Undoes the fault in progress, where that needs state from its beginning."""
        self.no_small_disks = "" if small_disks else "not requested"
        self._port = {name: free_port() for name in ("front", "back", "events", "http")}
        self._relayed = {
            name: free_port() for name in ("front_g", "front_p", "back", "events", "http")
        }
        self._second = _bus(*(free_port() for _ in range(3))) if brokers > 1 else {}
        """Endpoints of the second broker."""
        settings = {
            "METRICS_PORT": str(free_range(100)),
            "PORT": str(self._port["http"]),
            "MAX_CONNECTIONS": "1000",
            sabotage.DIRECTORY_VARIABLE: str(self.orders),
            **_bus(self._port["front"], self._port["back"], self._port["events"]),
        }
        super().__init__(settings, supervised=True, directory=directory)
        sockets = run_directory(self.data)
        self.redis_path = sockets / "redis.sock"
        self.relay_sockets = directory / "relays"
        ports, relayed = self._port, self._relayed
        self.proxies: dict[str, Proxy] = {
            "gateway-broker": Proxy(Address(relayed["front_g"]), Address(ports["front"])),
            "persistence-broker": Proxy(Address(relayed["front_p"]), Address(ports["front"])),
            "worker-broker": Proxy(Address(relayed["back"]), Address(ports["back"])),
            "events": Proxy(Address(relayed["events"]), Address(ports["events"])),
            "client-gateway": Proxy(Address(relayed["http"]), Address(ports["http"])),
            "persistence-postgres": Proxy(
                Address(path=self.relay_sockets / ".s.PGSQL.5432"),
                Address(path=sockets / ".s.PGSQL.5432"),
            ),
            "gateway-redis": Proxy(
                Address(path=self.relay_sockets / "redis.sock"),
                Address(path=sockets / "redis.sock"),
            ),
        }

    @property
    def http_port(self) -> int:
        return self._port["http"]

    @property
    def websocket_url(self) -> str:
        """Through the relay between clients and gateways."""
        return f"ws://127.0.0.1:{self._relayed['http']}/ws/asr"

    def __enter__(self) -> System:
        site = self.directory / "site"
        for path in (self.directory, self.logs, self.orders, self.relay_sockets, site):
            path.mkdir(parents=True, exist_ok=True)
        if not self.no_small_disks:
            self._mount_small_disks()
        (site / "sitecustomize.py").write_text(sabotage.SITECUSTOMIZE)
        try:
            for proxy in self.proxies.values():
                proxy.start()
            self.start_all(workers=WORKERS, gateway=GATEWAYS, broker=self.brokers)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _mount_small_disks(self) -> None:
        try:
            disks.enter_namespace()
            disks.mount(self.data, DATA_DISK_BYTES)
            disks.mount(self.logs, LOG_DISK_BYTES)
        except disks.NoSmallDisksError as error:
            self.no_small_disks = str(error)

    # ------------------------------------------------------------------------------------ processes

    def settings_of(self, name: str) -> dict[str, str]:
        """Every process connects through the relays; brokers and services bind."""
        relayed = self._relayed
        front = relayed["front_p" if name == "persistence" else "front_g"]
        changes: dict[str, str] = {}
        if name == "broker2":
            changes |= self._second
        elif name != "broker":
            first = _bus(front, relayed["back"], relayed["events"])
            changes |= {
                name: f"{end},{self._second[name]}" if self._second else end
                for name, end in first.items()
            }
        if name != "embedded":
            relays = quote(str(self.relay_sockets), safe="")
            changes["DATABASE_URL"] = f"postgresql://postgres@/postgres?host={relays}"
            changes["REDIS_URL"] = f"unix://{self.relay_sockets}/redis.sock"
        if name == "asr_worker":
            changes["PYTHONPATH"] = f"{self.directory / 'site'}:{ROOT}"
        return {**self.environment, **changes}

    def restart_workers(self) -> None:
        """Start the workers' supervisor again after its end."""
        self.processes.pop("asr_worker").wait()
        self.start("asr_worker", ASR_WORKERS=str(WORKERS))

    def stop(self) -> None:
        self.undo.close()
        super().stop()
        for proxy in self.proxies.values():
            proxy.stop()

    # ------------------------------------------------------------------------------------ observing

    def is_ready(self, gateway: str, workers: int) -> bool:
        health = self.get("/api/v1/health", gateway).body or {}
        services_ready = health.get("status") == "ready" and bool(health.get("redis_ready"))
        brokers_ready = [each["workers"] >= workers for each in health.get("brokers", [])]
        return services_ready and all(brokers_ready) and super().is_ready(gateway, workers)

    def wait_all_ready(self) -> None:
        """Wait until both gateways, all workers and the services are there.

        Raises:
            AssertionError: if that takes too long.
        """
        self.wait_ready(workers=WORKERS)

    def gauges(self) -> dict[str, float]:
        """Gauges that are zero at rest, of the broker and of every gateway, by port offset."""
        seen = self.metrics("broker", "gateway")
        return {
            f"{name}:{offset}": value
            for name in GAUGES_AT_REST
            for offset, value in seen.each(name).items()
        }

    def is_completed(self, session_id: str) -> bool | None:
        """Whether the session's row is complete now; None if the database does not answer."""
        return database.is_completed(self.database_url, session_id)


def _bus(front: int, back: int, events: int) -> dict[str, str]:
    ports = {"BROKER_FRONTEND": front, "BROKER_BACKEND": back, "BROKER_EVENTS": events}
    return {name: f"tcp://127.0.0.1:{port}" for name, port in ports.items()}
