"""The whole system as one child: honcho with the Procfile, started, watched and ended."""

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
"""After SIGTERM, for the gateways and then for the rest; beyond it whatever is left is killed."""
ERRORS_MAX = 5
"""Error lines remembered for the end: the first ones, because later ones are consequences."""

_STARTED = re.compile(r"system\s*\| (\w+)\.\d+ started \(pid=(\d+)\)$")
_ERROR = re.compile(r"\d\d:\d\d:\d\d (\w+)\.\d+\s*\| error: (.*)$")


class Stack:
    """honcho and everything it runs. Call ``stop`` when done, whatever happened."""

    def __init__(
        self,
        tell: Callable[[str], None],
        concurrency: str = "",
        directory: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the Procfile in ``directory``. ``tell`` gets each line of output, on a thread of
        its own; ``concurrency`` is honcho's (``gateway=2,asr_worker=2``); ``environment`` is
        added to ours."""
        self.errors: list[str] = []
        """Lines with which processes ended themselves, each once."""
        self._tell = tell
        self._groups: list[tuple[str, int]] = []
        command = [sys.executable, "-m", "honcho", "start"]
        if concurrency:
            command += ["-c", concurrency]
        # The Procfile's `python` must be the one that runs us, wherever its environment is.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        # honcho inherits the reading end too: if we are killed, its last words (and so its orderly
        # end) must not fail on a broken pipe.
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
            # Ctrl-C goes to the terminal's whole group; honcho shall hear of it once, from us.
            start_new_session=True,
            preexec_fn=functools.partial(lifecycle.die_with_parent, signal.SIGTERM),
        )
        os.close(honcho_output)
        self._reader = threading.Thread(target=self._read, name="honcho-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """honcho's; everything else descends from it."""
        return self._honcho.pid

    @property
    def exit_code(self) -> int | None:
        """honcho's; None while it runs."""
        return self._honcho.poll()

    def stop(self) -> None:
        """End the gateways, so that running sessions still get their texts, and with them
        everything; returns when no process is left.

        Not by way of honcho, whose signal handler prints, and breaks if it interrupts printing.
        It ends the others when the first of its processes has ended.
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
        """Signal what honcho started, or only processes of one kind. False: there are none."""
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
            self._tell(text)
