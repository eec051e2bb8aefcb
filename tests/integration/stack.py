"""The whole pipeline as real processes on sockets of its own, one object to start, hurt and ask."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.logged_process import LoggedProcess
from tools.ops.ports import free_port

READY_TIMEOUT_S = 90.0


def wait_until(
    condition: Callable[[], bool], what: str, timeout_s: float = READY_TIMEOUT_S
) -> None:
    """For conditions that can only be asked for. Fails loudly when the time is over."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


class Stack:
    """Processes by name; ``gateway`` and ``gateway2`` are two gateways."""

    def __init__(self, database_url: str, redis_url: str, **environment: str) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self.processes: dict[str, LoggedProcess] = {}
        self.ports: dict[str, int] = {}
        self._directory = tempfile.TemporaryDirectory(prefix="asr-test-")
        directory = Path(self._directory.name)
        self.environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "DATA_DIR": str(directory),
            "BROKER_FRONTEND": f"ipc://{directory}/front",
            "BROKER_BACKEND": f"ipc://{directory}/back",
            "BROKER_EVENTS": f"ipc://{directory}/events",
            **environment,
        }

    # ------------------------------------------------------------------------------------ processes

    def start(self, name: str, module: str | None = None, **environment: str) -> LoggedProcess:
        """Start ``python -m MODULE`` (``name`` without digits, if not given)."""
        module = module or name.rstrip("0123456789")
        merged = {**self.environment, **environment}
        if module == "gateway":
            self.ports[name] = int(environment.get("PORT") or free_port())
            merged["PORT"] = str(self.ports[name])
        process = LoggedProcess(module, **merged)
        self.processes[name] = process
        return process

    def start_all(self, *, workers: int = 1) -> None:
        """Broker, worker children, persistence and one gateway; returns when all is ready."""
        self.start("broker")
        self.start("asr_worker", ASR_WORKERS=str(workers))
        self.start("persistence")
        self.start("gateway")
        self.wait_ready(workers=workers)

    def wait_ready(self, gateway: str = "gateway", *, workers: int = 1) -> None:
        def ready() -> bool:
            answer = self.get("/api/v1/health", gateway)
            body = answer.body
            return answer.status == 200 and body["workers_ready"] >= workers and body["db_ready"]

        wait_until(ready, f"{gateway} ready with {workers} workers:\n{self.log_tail()}")

    def stop(self) -> None:
        """End everything, front to back, and fail if anything does not end by itself."""
        order = ("gateway", "asr_worker", "persistence", "broker")
        names = sorted(
            self.processes,
            key=lambda name: next((i for i, p in enumerate(order) if name.startswith(p)), 9),
        )
        for name in names:
            with self.processes.pop(name):
                pass
        self._directory.cleanup()

    def log_tail(self, lines: int = 15) -> str:
        return "\n".join(
            f"[{name}] {line}"
            for name, process in self.processes.items()
            for line in process.lines[-lines:]
        )

    # -------------------------------------------------------------------------------------- asking

    def url(self, gateway: str = "gateway") -> str:
        return f"ws://127.0.0.1:{self.ports[gateway]}/ws/asr"

    def http_url(self, gateway: str = "gateway") -> str:
        return f"http://127.0.0.1:{self.ports[gateway]}"

    def get(self, path: str, gateway: str = "gateway", method: str = "GET") -> Answer:
        """An HTTP answer, whatever its status; status 0 when there is no server."""
        request = urllib.request.Request(self.http_url(gateway) + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return _answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, dict(error.headers), error.read())
        except OSError:
            return Answer(0, {}, None)


def _answer(status: int, headers: dict[str, str], body: bytes) -> Answer:
    parsed: Any = body.decode()
    with contextlib.suppress(ValueError):
        parsed = json.loads(body)
    return Answer(status, {name.lower(): value for name, value in headers.items()}, parsed)


@contextlib.contextmanager
def running_stack(database_url: str, redis_url: str, **environment: str) -> Iterator[Stack]:
    """A stack without any process yet, ended at the end."""
    stack = Stack(database_url, redis_url, **environment)
    try:
        yield stack
    finally:
        stack.stop()
