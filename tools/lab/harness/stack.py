"""The whole pipeline as real processes on sockets of its own."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from runtime.metrics import PORT_OFFSETS
from runtime.settings import DatabaseSettings
from tools.lab.harness import metrics, process, usage
from tools.lab.harness.http import Answer, ask
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import ROOT, LoggedProcess

READY_TIMEOUT_S: Final = 90.0
START_ORDER: Final = ("embedded", "broker", "asr_worker", "persistence", "gateway")
STOP_ORDER: Final = ("gateway", "asr_worker", "persistence", "broker", "embedded")
"""Gateways first: their sessions still get their texts, and these are stored."""
ADMITS_ALL: Final = {
    "ADMIT_BUSY_MAX": "0",
    "ADMIT_DELAY_MS_MAX": "0",
    "ADMIT_SESSIONS_PER_S_MAX": "0",
    "ADMIT_UTILISATION_MAX": "0",
    "EST_WAIT_MS_MAX": "1000000",
}
"""Settings of a gateway that refuses no session because of load. Other programs on the machine
are load, too."""


def wait_until(
    condition: Callable[[], bool], what: str, timeout_s: float = READY_TIMEOUT_S
) -> None:
    process.wait_until(condition, what, timeout_s)


def procfile(checkout: Path = ROOT) -> dict[str, list[str]]:
    """The arguments of ``python -m`` in each line of the Procfile, by the line's name."""
    lines = re.findall(r"^(\w+):.* -m (.+)$", (checkout / "Procfile").read_text(), re.MULTILINE)
    return {name: arguments.split() for name, arguments in lines}


class Stack:
    """Processes by name: ``gateway`` and ``gateway2`` are two gateways.

    ``environment`` holds the settings of all processes. Without a DATABASE_URL and a REDIS_URL,
    ``start_all`` starts embedded services. Call ``stop`` at the end.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        supervised: bool = False,
        directory: Path | None = None,
        checkout: Path = ROOT,
    ) -> None:
        """With ``supervised`` each process runs as the Procfile has it, and is restarted after a
        crash. Data and logs are kept in ``directory``, or in a temporary one until ``stop``.
        Processes run the code of ``checkout``, which may be changed between starts."""
        self._temporary = None if directory else tempfile.TemporaryDirectory(prefix="asr-stack-")
        self.directory = Path(self._temporary.name) if self._temporary else directory or Path()
        self.data = self.directory / "data"
        self.logs = self.directory / "logs"
        self.processes: dict[str, LoggedProcess] = {}
        self.ports: dict[str, int] = {}
        self._supervised = supervised
        self.checkout = checkout
        self.environment = {
            "DATA_DIR": str(self.data),
            "BROKER_FRONTEND": f"ipc://{self.directory}/front",
            "BROKER_BACKEND": f"ipc://{self.directory}/back",
            "BROKER_EVENTS": f"ipc://{self.directory}/events",
            **environment,
        }

    @property
    def database_url(self) -> str:
        """Of PostgreSQL itself, for the harness."""
        embedded = DatabaseSettings(data_dir=self.data, database_url=None, db_host=None)
        return self.environment.get("DATABASE_URL") or embedded.database_address()

    # ------------------------------------------------------------------------------------ processes

    def settings_of(self, name: str) -> dict[str, str]:
        """Environment of the process ``name``."""
        del name
        return self.environment

    def prefix_of(self, name: str) -> Iterable[str]:
        """Words before the command line of the process ``name``."""
        del name
        return ()

    def start(self, name: str, **environment: str) -> LoggedProcess:
        """Start the Procfile's line ``name``, which may end with a number. Gateways listen on
        ``PORT``, or on a free port each if it is not set."""
        kind = name.rstrip("0123456789")
        merged = {**self.settings_of(name), **environment}
        if kind == "gateway":
            self.ports[name] = int(merged.get("PORT") or free_port())
            merged["PORT"] = str(self.ports[name])
        arguments = procfile(self.checkout)[kind]
        if not self._supervised:
            arguments = arguments[-1:]
        for folder in (self.logs, self.data):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_path = f"{self.logs}/{name}.log"
        started = LoggedProcess(
            *arguments,
            log_path=log_path,
            checkout=str(self.checkout),
            prefix=self.prefix_of(name),
            **merged,
        )
        self.processes[name] = started
        return started

    def start_all(self, *, workers: int = 1, **counts: int) -> None:
        """Start ``counts`` of each line of the Procfile, one if it is not given, and wait until
        they are ready. Each line of ``asr_worker`` runs ``workers`` processes."""
        for kind in START_ORDER:
            if kind == "embedded" and {"DATABASE_URL", "REDIS_URL"} <= self.environment.keys():
                continue
            settings = {"ASR_WORKERS": str(workers)} if kind == "asr_worker" else {}
            for number in range(1, counts.get(kind, 1) + 1):
                self.start(f"{kind}{number if number > 1 else ''}", **settings)
        self.wait_ready(workers=workers * counts.get("asr_worker", 1))

    def is_ready(self, gateway: str, workers: int) -> bool:
        """Whether ``gateway`` answers, has ``workers`` workers, and can have its records stored.
        Supervised gateways share a port, so all of them must be running."""
        health = self.get("/api/v1/health", gateway)
        lines = sum(name.startswith("gateway") for name in self.processes)
        return (
            health.status == 200
            and health.body["workers_ready"] >= workers
            and bool(health.body["db_ready"])
            and (not self._supervised or len(self.living("gateway")) == lines)
        )

    def wait_ready(
        self, gateway: str = "gateway", *, workers: int = 1, timeout_s: float = READY_TIMEOUT_S
    ) -> None:
        """Wait until ``is_ready``.

        Raises:
            AssertionError: if it ends, or is not ready in time; with the end of each log.
        """
        is_ready = False

        def ready_or_ended() -> bool:
            nonlocal is_ready
            is_ready = self.is_ready(gateway, workers)
            # A supervisor ends because of a wrong setting only.
            needed = self.processes if self._supervised else (gateway,)
            return is_ready or any(self.processes[name].exit_code is not None for name in needed)

        with contextlib.suppress(AssertionError):
            wait_until(ready_or_ended, gateway, timeout_s)
        if not is_ready:
            raise AssertionError(
                f"{gateway} is not ready with {workers} workers:\n{self.log_tail()}"
            )

    def stop(self) -> None:
        """End every process in ``STOP_ORDER``; kill the rest."""
        for kind in (*STOP_ORDER, ""):
            names = [name for name in self.processes if name.startswith(kind)]
            ending = [self.processes.pop(name) for name in names]
            for each in ending:
                each.begin_stop()
            for each in ending:
                each.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of each process's log."""
        return "\n".join(
            f"[{name}] {line}"
            for name, each in self.processes.items()
            for line in each.lines[-lines:]
        )

    # ------------------------------------------------------------------------------------ observing

    def url(self, gateway: str = "gateway") -> str:
        return f"ws://127.0.0.1:{self.ports[gateway]}/ws/asr"

    def http_url(self, gateway: str = "gateway") -> str:
        return f"http://127.0.0.1:{self.ports[gateway]}"

    def get(self, path: str, gateway: str = "gateway", method: str = "GET") -> Answer:
        """An HTTP answer of a gateway, whatever its status; status 0 if there is none."""
        return ask(self.http_url(gateway) + path, method)

    def queue(self) -> dict[str, Any]:
        """The broker's counters in Redis; empty without an answer."""
        answer = self.get("/api/v1/asr/queue/status")
        return answer.body if answer.status == 200 else {}

    def metrics(self, *kinds: str) -> metrics.Metrics:
        """Metrics of the processes of ``kinds``, or of all. The stack needs a METRICS_PORT."""
        return metrics.scrape(int(self.environment["METRICS_PORT"]), kinds or PORT_OFFSETS)

    def family(self) -> list[psutil.Process]:
        """All processes of the stack."""
        return [member for each in self.processes.values() for member in usage.family(each.pid)]

    def living(self, kind: str) -> list[psutil.Process]:
        """The living processes of a kind (``usage.kind_of``), oldest first."""
        return usage.of_kind(kind, self.family())


@contextlib.contextmanager
def running_stack(database_url: str, redis_url: str, **environment: str) -> Iterator[Stack]:
    """A stack on given services, without any process yet; stopped at the end. It refuses no session
    because of load, unless ``environment`` says otherwise."""
    services = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    stack = Stack({**ADMITS_ALL, **services, **environment})
    try:
        yield stack
    finally:
        stack.stop()


@contextlib.contextmanager
def supervised_stack(
    environment: Mapping[str, str], *, workers: int = 1, checkout: Path = ROOT, **counts: int
) -> Iterator[Stack]:
    """A whole system as ``make run`` starts it, ready, with embedded services and one port;
    ``workers`` and ``counts`` are those of ``start_all``."""
    stack = Stack({"PORT": str(free_port()), **environment}, supervised=True, checkout=checkout)
    try:
        stack.start_all(workers=workers, **counts)
        yield stack
    finally:
        stack.stop()
