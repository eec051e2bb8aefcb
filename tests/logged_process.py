"""A real process of the system under test: started by module name, awaited by its log events."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
OURS = (
    "AUTH_",
    "DATABASE_URL",
    "REDIS_URL",
    "DB_",
    "BROKER_",
    "BUS_",
    "DATA_DIR",
    "METRICS_PORT",
    "LOG_",
    "PORT",
)
"""Settings of the developer's own shell that must not reach a test's processes."""


class LoggedProcess:
    """``python -m MODULE`` with JSON logs. Its events are kept; ``event`` waits for one.

    Use as a context manager: leaving it ends the process (SIGTERM, then SIGKILL).
    """

    def __init__(self, module: str, *arguments: str, **environment: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=CHECKOUT,
            env={**inherited, "LOG_FORMAT": "json", **environment},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._child.pid
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def event(
        self,
        name: str,
        *,
        timeout_s: float = 30.0,
        after: int = 0,
        where: Callable[[dict[str, Any]], bool] = lambda _event: True,
    ) -> dict[str, Any]:
        """The first event ``name`` after the first ``after`` events, waited for.

        Raises:
            AssertionError: when the process ends or the time is over before; with its log.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for event in self.events[after:]:
                    if event.get("event") == name and where(event):
                        return event
                left_s = deadline_s - time.monotonic()
                if self._ended or left_s <= 0:
                    raise AssertionError(f"no event {name}:\n" + "\n".join(self.lines[-50:]))
                self._changed.wait(left_s)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._child.kill()
        self.wait()

    def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        self._child.terminate()
        return self.wait()

    def send_signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit code, waited for; every line it wrote is then in ``lines``."""
        code = self._child.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def __enter__(self) -> LoggedProcess:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(10)
            self._child.kill()
        self.wait()

    def _read(self) -> None:
        assert self._child.stderr is not None
        with self._child.stderr as lines:
            for line in lines:
                event: Any = None
                with contextlib.suppress(json.JSONDecodeError):
                    event = json.loads(line)
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    if isinstance(event, dict):
                        self.events.append(event)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
