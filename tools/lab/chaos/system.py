"""The system under test: two gateways on one port, broker, two workers, persistence, and embedded
services, with a relay on every link."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psutil

from runtime import lifecycle
from runtime.settings import embedded_socket_dir
from tools.lab.chaos import disks, sabotage
from tools.lab.chaos.proxy import Address, Proxy
from tools.ops.ports import free_port, free_range
from tools.ops.stack import ROOT

READY_S_MAX: Final = 90.0
STOP_S: Final = 10.0
HTTP_TIMEOUT_S: Final = 3.0
GATEWAYS_MAX: Final = 4
"""Metrics ports that are asked: a new gateway may come before the old one's port is free."""
DATA_DISK_BYTES: Final = 768 << 20
LOG_DISK_BYTES: Final = 64 << 20

Command = tuple[str, ...]
SUPERVISED: Final[dict[str, Command]] = {
    "embedded": ("runtime.supervisor", "tools.embedded"),
    "broker": ("runtime.supervisor", "broker"),
    "asr_worker": ("asr_worker",),
    "persistence": ("runtime.supervisor", "persistence"),
    "gateway1": ("runtime.supervisor", "gateway"),
    "gateway2": ("runtime.supervisor", "gateway"),
}
KINDS: Final[dict[str, Callable[[list[str], str], bool]]] = {
    "gateway": lambda command, _name: command[1:3] == ["-m", "gateway"],
    "broker": lambda command, _name: command[1:3] == ["-m", "broker"],
    "persistence": lambda command, _name: command[1:3] == ["-m", "persistence"],
    "worker": lambda command, _name: command[1:3] == ["-m", "asr_worker.service"],
    "worker_supervisor": lambda command, _name: command[1:3] == ["-m", "asr_worker"],
    "postgres": lambda command, name: name == "postgres" and "-D" in command,
    "redis": lambda _command, name: name in ("valkey-server", "redis-server"),
}


class NotReadyError(Exception):
    """The system does not come up; the message holds the end of its log."""


class System:
    """Use as a context manager, on the thread that starts every process. Logs go to
    ``directory``/logs/log. With ``small_disks`` logs and data lie on small disks of their own, if
    this host lets us mount; ``no_small_disks`` says why not."""

    def __init__(self, directory: Path, *, small_disks: bool = False) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.log_path = self.logs / "log"
        self.orders = directory / "orders"
        self.data = directory / "data"
        self.undo = contextlib.ExitStack()
        """How the fault that is under way is mended, where that needs what its beginning knew."""
        self.no_small_disks = "" if small_disks else "not asked for"
        sockets = embedded_socket_dir(self.data)
        self.database_url = f"postgresql://postgres@/postgres?host={quote(str(sockets), safe='')}"
        self.redis_path = sockets / "redis.sock"
        self.metrics_port = free_range(100)
        ports = {name: free_port() for name in ("front", "back", "events", "http")}
        self._ports = ports
        relayed = {name: free_port() for name in ("front_g", "front_p", "back", "events", "http")}
        self._relayed = relayed
        self.relay_sockets = directory / "relays"
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
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['http']}"

    @property
    def http_port(self) -> int:
        return self._ports["http"]

    @property
    def websocket_url(self) -> str:
        """By way of the relay between clients and gateways."""
        return f"ws://127.0.0.1:{self._relayed['http']}/ws/asr"

    @property
    def broker_endpoints(self) -> tuple[str, str]:
        """Front and back, past the relays."""
        front, back = (f"tcp://127.0.0.1:{self._ports[name]}" for name in ("front", "back"))
        return front, back

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
            for name in SUPERVISED:
                self.start(name)
            self.wait_ready()
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

    def start(self, name: str) -> None:
        """Start one line of the system, such as ``gateway1``, with its supervisor."""
        with self.log_path.open("ab") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", *SUPERVISED[name]],
                cwd=ROOT,
                env=self._environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lifecycle.die_with_parent,
            )

    def restart(self, name: str) -> None:
        """Start a line again whose own process is gone."""
        self._children[name].wait(STOP_S)
        self.start(name)

    def _environment(self, name: str) -> dict[str, str]:
        ports, relayed = self._ports, self._relayed
        front = relayed["front_p"] if name == "persistence" else relayed["front_g"]
        bound = name == "broker"
        relays = quote(str(self.relay_sockets), safe="")
        environment = {
            **os.environ,
            "LOG_FORMAT": "json",
            "DATA_DIR": str(self.data),
            "METRICS_PORT": str(self.metrics_port),
            "PORT": str(ports["http"]),
            "ASR_WORKERS": "2",
            "MAX_CONNECTIONS": "1000",
            "BROKER_FRONTEND": f"tcp://127.0.0.1:{ports['front'] if bound else front}",
            "BROKER_BACKEND": f"tcp://127.0.0.1:{ports['back'] if bound else relayed['back']}",
            "BROKER_EVENTS": f"tcp://127.0.0.1:{ports['events'] if bound else relayed['events']}",
            sabotage.DIRECTORY_VARIABLE: str(self.orders),
        }
        if name == "asr_worker":
            environment["PYTHONPATH"] = f"{self.directory / 'site'}:{ROOT}"
        if name != "embedded":
            environment["DATABASE_URL"] = f"postgresql://postgres@/postgres?host={relays}"
            environment["REDIS_URL"] = f"unix://{self.relay_sockets}/redis.sock"
        return environment

    def stop(self) -> None:
        """End everything, gateways first; what does not end is killed."""
        self.undo.close()
        order = ("gateway", "asr_worker", "persistence", "broker", "embedded")
        for prefix in order:
            children = [c for name, c in self._children.items() if name.startswith(prefix)]
            for child in children:
                for process in _family(child.pid):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.resume()  # A stopped one hears no SIGTERM.
                child.terminate()
            for child in children:
                family = _family(child.pid)
                try:
                    child.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                for process in family:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
        for proxy in self.proxies.values():
            with contextlib.suppress(RuntimeError):  # It was never started.
                proxy.stop()

    def processes(self, kind: str) -> list[psutil.Process]:
        """The living processes of a kind, oldest first."""
        found = []
        for child in self._children.values():
            for process in _family(child.pid):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if KINDS[kind](process.cmdline(), process.name()):
                        found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    # --------------------------------------------------------------------------------------- asking

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Status and body; status 0 when nobody answers."""
        url = f"http://127.0.0.1:{port or self._ports['http']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def health(self) -> dict[str, Any]:
        status, body = self.get("/api/v1/health")
        return json.loads(body) if status else {}

    def queue(self) -> dict[str, Any]:
        status, body = self.get("/api/v1/asr/queue/status")
        return json.loads(body) if status == 200 else {}

    def is_ready(self) -> bool:
        health = self.health()
        return (
            health.get("status") == "ok"
            and health.get("workers_ready", 0) >= 2
            and bool(health.get("redis_ready"))
            and len(self.processes("gateway")) == 2
        )

    def wait_ready(self) -> None:
        """Raises ``NotReadyError`` if it takes too long."""
        deadline_s = time.monotonic() + READY_S_MAX
        while not self.is_ready():
            if time.monotonic() > deadline_s:
                tail = self.log_path.read_text(errors="replace").splitlines()[-20:]
                raise NotReadyError("the system does not become ready\n" + "\n".join(tail))
            time.sleep(0.1)


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
