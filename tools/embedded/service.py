"""Supervision of the servers: start, restart with backoff, stop in order."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Protocol

import structlog

from runtime import lifecycle
from runtime.backoff import Backoff
from tools.embedded.directory import DataDirectory, EmbeddedError

POLL_S = 0.05
RESTART_DELAY_INITIAL_S = 0.2
RESTART_DELAY_MAX_S = 5.0
HEALTHY_AFTER_S = 10.0
"""Uptime after which the backoff is reset."""
SLOW_START_S = 15.0
"""Time after which a server that does not answer is logged. The wait continues, because recovery
can take longer."""
LAST_LINE_BYTES_MAX = 500

StopSignals = tuple[tuple[signal.Signals, float], ...]
"""Signals in order, each with a time limit in seconds. SIGKILL follows the last one."""

log = structlog.get_logger()


class Server(Protocol):
    """A server program."""

    name: str
    stop_signals: StopSignals

    def prepare(self) -> None: ...

    def command(self) -> list[str]: ...

    def answers(self) -> bool: ...

    def before_exec(self) -> None: ...


class Supervised:
    """One server: not running, starting, or ready. You must use it on the main thread, because the
    kernel kills a child when the thread that started it ends."""

    def __init__(self, server: Server, directory: DataDirectory) -> None:
        self.server = server
        self.ready = False
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None
        self._backoff = Backoff(RESTART_DELAY_INITIAL_S, RESTART_DELAY_MAX_S, random.Random())
        self._start_at_s = 0.0
        self._started_s = 0.0
        self._reported_slow = False
        self._log = log.bind(server=server.name)

    def start(self) -> None:
        """Start the program.

        Raises:
            EmbeddedError: If it cannot be started.
        """
        try:
            self.server.prepare()
            log_file = self._directory.log_file(self.server.name).open("ab")
        except OSError as error:  # Such as files of another user.
            raise EmbeddedError(
                f"DATA_DIR {self._directory.root}: {error.filename}: {error.strerror}"
            ) from error
        with log_file as output:
            self._child = subprocess.Popen(
                self.server.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory.root,
                preexec_fn=self.server.before_exec,
                # Ctrl-C and honcho signal whole process groups, and the database must outlive its
                # clients.
                start_new_session=True,
            )
        self._started_s = time.monotonic()
        self._reported_slow = False

    def tick(self, now_s: float) -> None:
        """Detect a crash, restart when it is due, detect readiness."""
        if self._child is None:
            if now_s >= self._start_at_s:
                self._restart(now_s)
        elif self._child.poll() is not None:
            self._crashed(now_s, self._child.returncode)
        elif not self.ready:
            self._probe(now_s)

    def stop(self) -> None:
        """Stop the program and wait for its end."""
        child = self._child
        if child is None:
            return
        for number, wait_s in self.server.stop_signals:
            if child.poll() is None:
                child.send_signal(number)
            try:
                child.wait(wait_s)
            except subprocess.TimeoutExpired:
                continue
            break
        else:
            self._log.error("server_killed")
            child.kill()
            child.wait()
        self._child = None
        self.ready = False

    def _restart(self, now_s: float) -> None:
        try:
            self.start()
        except (EmbeddedError, OSError) as error:
            self._wait_before_restart(now_s, error=str(error))

    def _crashed(self, now_s: float, exit_code: int) -> None:
        if now_s - self._started_s >= HEALTHY_AFTER_S:
            self._backoff.reset()
        self._child = None
        self.ready = False
        self._wait_before_restart(now_s, exit_code=exit_code, last_line=self._last_log_line())

    def _wait_before_restart(self, now_s: float, **details: object) -> None:
        delay_s = self._backoff.next_delay_s()
        self._start_at_s = now_s + delay_s
        self._log.error("server_crashed", restart_in_s=round(delay_s, 2), **details)

    def _probe(self, now_s: float) -> None:
        if self.server.answers():
            self.ready = True
            self._log.info("server_ready", after_s=round(time.monotonic() - self._started_s, 2))
        elif now_s - self._started_s >= SLOW_START_S and not self._reported_slow:
            self._reported_slow = True
            self._log.warning("server_slow_to_start", last_line=self._last_log_line())

    def _last_log_line(self) -> str:
        lines = self._directory.log_file(self.server.name).read_bytes()[-LAST_LINE_BYTES_MAX:]
        return (lines.decode(errors="replace").strip().splitlines() or [""])[-1]


def run(servers: Sequence[Server], directory: DataDirectory, stop: lifecycle.StopSignal) -> None:
    """Run ``servers`` until ``stop`` is requested, then stop them in reverse order.

    Raises:
        EmbeddedError: If a server cannot be started for the first time.
    """
    supervised = [Supervised(server, directory) for server in servers]
    announced = False
    try:
        for each in supervised:
            each.start()
        while not stop.requested:
            for each in supervised:
                each.tick(time.monotonic())
            if not announced and all(each.ready for each in supervised):
                announced = True
                log.info("embedded_services_ready", servers=[s.name for s in servers])
            stop.wait(POLL_S)
    finally:
        for each in reversed(supervised):
            each.stop()
        log.info("embedded_services_stopped")
