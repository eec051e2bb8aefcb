"""honcho, which runs the processes of the Procfile, as one child process."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from runtime import lifecycle

ROOT = Path(__file__).resolve().parents[2]
STOP_S_MAX = 2 * lifecycle.DRAIN_S + 1.0
"""Limit on the stop of the gateways and then of the rest; beyond it processes are killed."""
ERRORS_MAX = 5
"""Error lines kept: the first ones, because later ones are consequences."""

_STARTED = re.compile(r"system\s*\| (\w+)\.\d+ started \(pid=(\d+)\)$")
_PREFIX = re.compile(r"\d\d:\d\d:\d\d \w+\.\d+\s*\| (?={)")
_ERROR = re.compile(r"\d\d:\d\d:\d\d (\w+)\.\d+\s*\| error: (.*)$")


def without_prefix(line: str) -> str:
    """Return a JSON line without honcho's prefix, and any other line unchanged."""
    return _PREFIX.sub("", line, count=1)


class Honcho:
    """honcho and the processes that it runs. You must call ``stop()`` in the end."""

    def __init__(
        self,
        show: Callable[[str], None],
        concurrency: str = "",
        directory: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the Procfile in ``directory``.

        Args:
            show: Called with each line of output, in another thread.
            concurrency: Processes of each kind, as ``gateway=2,asr_worker=2``.
            environment: Variables added to those of this process.
        """
        self.errors: list[str] = []
        """Error lines of processes that ended, without repetitions."""
        self._show = show
        self._groups: list[tuple[str, int]] = []
        # A file .env would replace variables without the knowledge of this process.
        command = [sys.executable, "-m", "honcho", "start", "--env", os.devnull]
        if concurrency:
            command += ["-c", concurrency]
        # `python` in the Procfile must be this interpreter.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        # honcho inherits the reading end, too. If this process is killed, honcho still prints while
        # it stops its children, and a broken pipe would interrupt that.
        output, honcho_output = os.pipe()
        self._output = os.fdopen(output, errors="replace")
        self._honcho = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=honcho_output,
            stderr=subprocess.STDOUT,
            pass_fds=[output],
            # The terminal sends Ctrl-C to its whole process group; honcho must receive one signal.
            start_new_session=True,
            preexec_fn=functools.partial(lifecycle.die_with_parent, signal.SIGTERM),
        )
        os.close(honcho_output)
        self._reader = threading.Thread(target=self._read, name="honcho-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of honcho, the ancestor of all processes."""
        return self._honcho.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code of honcho; ``None`` while it runs."""
        return self._honcho.poll()

    def stop(self) -> None:
        """Stop the gateways first, so that running sessions still get their results, and then all
        processes. Return when none is left.

        Signals go to the gateways and not to honcho, whose signal handler prints and fails if it
        interrupts printing. honcho stops the other processes when the first one has ended.
        """
        if not self._groups:
            self._honcho.terminate()
        elif not self._signal(signal.SIGTERM, "gateway"):
            self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._honcho.wait(STOP_S_MAX)
        self._signal(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._honcho.pid, signal.SIGKILL)
        self._honcho.wait()
        self._reader.join()
        self._output.close()

    def _signal(self, number: signal.Signals, kind: str | None = None) -> bool:
        """Signal all processes, or those of one kind; return whether there are any."""
        reached = False
        for name, group in list(self._groups):
            if kind in (None, name):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, number)
                    reached = True
        return reached

    def _read(self) -> None:
        for line in self._output:
            text = line.rstrip("\n")
            if started := _STARTED.search(text):
                self._groups.append((started[1], int(started[2])))
            if (error := _ERROR.match(text)) and len(self.errors) < ERRORS_MAX:
                message = f"{error[1]}: {error[2]}"
                if message not in self.errors:
                    self.errors.append(message)
            self._show(text)
