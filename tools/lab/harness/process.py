"""One process under test: started by module name, observed by its log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import psutil

from runtime import lifecycle
from tools.lab.harness.usage import family

ROOT: Final = Path(__file__).resolve().parents[3]
READ_BYTES: Final = 1 << 20
POLL_S: Final = 0.02
EVENT_S_MAX: Final = 90.0
"""Longest wait for a log event, on a machine that is busy with other things."""
END_S_MAX: Final = 60.0
"""Longest wait for the end of a process."""
STOP_S_MAX: Final = 30.0
"""From SIGTERM to SIGKILL."""
SETTINGS: Final = (
    "AUTH_",
    "BROKER_",
    "BUS_",
    "DATABASE_URL",
    "DATA_DIR",
    "DB_",
    "LOG_",
    "METRICS_PORT",
    "PORT",
    "REDIS_URL",
)
"""Prefixes of settings in the developer's shell that must not reach a process under test."""


def inherited() -> dict[str, str]:
    """The environment of this process without the settings of another system. Unless it names a
    model, that is the bundled one, which is known to the harness and needs no download."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return {"ASR_MODEL": "demo", **kept}


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Poll ``condition``.

    Raises:
        AssertionError: if it is still false after ``timeout_s``; the message names ``what``.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)


class LoggedProcess:
    """``python -m MODULE ARGUMENTS`` with JSON logs in a file.

    Use it as a context manager, or call ``stop`` or ``wait``: they close the log. A process that
    the main thread starts dies with this one, even if this one is killed.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        log_path: str = "",
        checkout: str = str(ROOT),
        prefix: Iterable[str] = (),
        **settings: str,
    ) -> None:
        """``settings`` are added to the environment. The log is appended to ``log_path``, or kept
        in an unnamed temporary file. ``module`` is that of ``checkout``. ``prefix`` is a program
        that executes the rest of its command line, such as ``nsenter``."""
        with tempfile.NamedTemporaryFile() as unnamed:  # It has no name once it is open.
            path = Path(log_path or unnamed.name)
            self._log = path.open("a+b", buffering=0)  # closed by wait
        self._position = os.fstat(self._log.fileno()).st_size
        self._partial_line = b""
        self._lines: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._reading = threading.Lock()
        self._terminated = False
        # The kernel ends the child when the thread that started it ends.
        on_main_thread = threading.current_thread() is threading.main_thread()
        self._child = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, *arguments],
            cwd=checkout,
            env={**inherited(), "LOG_FORMAT": "json", **settings},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=lifecycle.die_with_parent if on_main_thread else None,
        )
        self.pid = self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while the process runs."""
        return self._child.poll()

    # ------------------------------------------------------------------------------------------ log

    @property
    def lines(self) -> list[str]:
        """All lines written so far."""
        self._read()
        return self._lines

    @property
    def events(self) -> list[dict[str, Any]]:
        """Log events written so far: the lines that are JSON objects."""
        self._read()
        return self._events

    def event(
        self,
        name: str,
        *,
        timeout_s: float = EVENT_S_MAX,
        after: int = 0,
        where: Callable[[dict[str, Any]], bool] = lambda _event: True,
    ) -> dict[str, Any]:
        """Wait for event ``name``; return the first one after the first ``after`` events.

        Raises:
            AssertionError: if the process ends or the time is over; with the end of the log.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            ended = self.exit_code is not None
            for event in self.events[after:]:
                if event.get("event") == name and where(event):
                    return event
            if ended or time.monotonic() > deadline_s:
                raise AssertionError(f"no event {name}:\n" + "\n".join(self.lines[-50:]))
            time.sleep(POLL_S)

    def _read(self, *, to_the_end: bool = False) -> None:
        with self._reading:
            if self._log.closed:
                return
            # The child writes at the file's own position, which must not move.
            while data := os.pread(self._log.fileno(), READ_BYTES, self._position):
                self._position += len(data)
                self._partial_line += data
            *lines, self._partial_line = self._partial_line.split(b"\n")
            if to_the_end and self._partial_line:
                lines.append(self._partial_line)
            for line in lines:
                text = line.decode(errors="replace")
                self._lines.append(text)
                with contextlib.suppress(json.JSONDecodeError):
                    event = json.loads(text)
                    if isinstance(event, dict):
                        self._events.append(event)

    # ------------------------------------------------------------------------------------------ end

    def send_signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self._child.kill()
        self.wait()

    def terminate(self) -> int:
        """Send SIGTERM, and wait; return the exit code."""
        self._child.terminate()
        return self.wait()

    def wait(self, timeout_s: float = END_S_MAX) -> int:
        """Wait for the end; return the exit code. ``lines`` is then complete.

        Raises:
            subprocess.TimeoutExpired: if the process still runs after ``timeout_s``.
        """
        code = self._child.wait(timeout_s)
        self._read(to_the_end=True)
        self._log.close()
        return code

    def begin_stop(self) -> None:
        """Continue the process and its children, which may be stopped, and send it SIGTERM."""
        if self.exit_code is None and not self._terminated:
            self._terminated = True
            for process in family(self.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
            self._child.terminate()

    def stop(self) -> None:
        """End the process and its children: SIGTERM, then SIGKILL after ``STOP_S_MAX``."""
        self.begin_stop()
        members = family(self.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_S_MAX)
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.wait()

    def __enter__(self) -> LoggedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
