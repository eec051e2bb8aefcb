"""``python -m runtime.supervisor PACKAGE``: run ``python -m PACKAGE`` and restart it when it exits.

honcho stops all processes when one exits, so each line of the Procfile runs under a supervisor.
``exit_codes.FINAL`` end it with the same code: one error message instead of a crash loop.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import structlog

from runtime import exit_codes, lifecycle, logging, settings
from runtime.backoff import Backoff
from runtime.liveness import LivenessWatch

RESTART_DELAY_INITIAL_S = 0.2
RESTART_DELAY_MAX_S = 5.0
HEALTHY_AFTER_S = 10.0
"""A child that ran this long resets the backoff."""
POLL_S = 0.1
KILL_AFTER_S = lifecycle.DRAIN_S + 0.5
"""Time from SIGTERM to SIGKILL."""


class Child:
    """One command that is kept running. Call ``check`` several times a second."""

    def __init__(
        self,
        command: list[str],
        *,
        environment: Mapping[str, str] | None = None,
        final: frozenset[int] = exit_codes.FINAL,
        silence_s_max: float | None = None,
    ) -> None:
        """``environment`` is added to the inherited one. An exit code in ``final`` ends the child
        for good. A child without a beat (``runtime.liveness``) for ``silence_s_max`` is killed and
        restarted; None: no limit."""
        self._command = command
        self._environment = dict(environment or {})
        self._final = final
        self._silence_s_max = silence_s_max
        self._backoff = Backoff(RESTART_DELAY_INITIAL_S, RESTART_DELAY_MAX_S, random.Random())
        self._log = structlog.get_logger().bind(command=" ".join(command[1:]))
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: LivenessWatch | None = None
        self._started_s = 0.0
        self._start_at_s = 0.0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def check(self, now_s: float) -> int | None:
        """Start, restart or kill the process if due. Returns its exit code if that is final."""
        if self._process is None:
            if now_s >= self._start_at_s:
                self._start(now_s)
            return None
        if self._watch is not None and self._watch.is_silent(now_s):
            self._log.error("child_unresponsive", pid=self.pid, silence_s_max=self._silence_s_max)
            self._process.kill()
            self._process.wait()
        code = self._process.poll()
        if code is None:
            return None
        self._forget()
        if code in self._final:
            return code
        if now_s - self._started_s >= HEALTHY_AFTER_S:
            self._backoff.reset()
        delay_s = self._schedule_start(now_s)
        self._log.error("child_exited", exit_code=code, **_ended_by(code), restart_in_s=delay_s)
        return None

    def _schedule_start(self, now_s: float) -> float:
        """Returns the delay until the next start."""
        delay_s = self._backoff.next_delay_s()
        self._start_at_s = now_s + delay_s
        return round(delay_s, 2)

    def _start(self, now_s: float) -> None:
        pass_fds: Sequence[int] = ()
        environment = {**os.environ, **self._environment}
        self._started_s = now_s
        try:
            if self._silence_s_max is not None:
                self._watch = LivenessWatch(self._silence_s_max, now_s)
                pass_fds = [self._watch.child_fd]
                environment.update(self._watch.environment())
            self._process = subprocess.Popen(
                self._command,
                env=environment,
                pass_fds=pass_fds,
                preexec_fn=lifecycle.die_with_parent,
            )
        except OSError as error:  # Out of memory, or of processes.
            self._forget()
            delay_s = self._schedule_start(now_s)
            self._log.error("child_start_failed", error=error.strerror, restart_in_s=delay_s)

    def terminate(self) -> None:
        """Send SIGTERM. Call ``end`` to reap the process."""
        if self._process is not None:
            self._process.terminate()

    def end(self, kill_after_s: float = KILL_AFTER_S) -> int:
        """SIGTERM, then SIGKILL. Returns the exit code; 0 after a signal or if it did not run."""
        if self._process is None:
            return exit_codes.OK
        self.terminate()
        try:
            code = self._process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            self._log.error("child_killed", pid=self.pid, after_s=kill_after_s)
            self._process.kill()
            code = self._process.wait()
        self._forget()
        return max(code, exit_codes.OK)

    def _forget(self) -> None:
        self._process = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None


_HINTS: dict[int, str] = {
    signal.SIGKILL: "the kernel does this if memory is short, see dmesg",
    signal.SIGABRT: "libraries do this without memory, threads or open files: see ulimit -a",
}


def _ended_by(code: int) -> dict[str, str]:
    """Fields of the log for a child that a signal has ended."""
    if code >= 0:
        return {}
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return {"signal": name} | ({"hint": _HINTS[-code]} if -code in _HINTS else {})


def reap_orphans(children: Sequence[Child]) -> None:
    """As process 1 of a container: collect the exit codes of processes whose parent has ended.
    Otherwise they stay as zombies."""
    own = {child.pid for child in children}
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        # The supervised ones are collected by ``Child.check``, before the next call.
        if found is None or found.si_pid in own:
            return
        os.waitpid(found.si_pid, 0)


def run_children(children: Sequence[Child], stop: lifecycle.StopSignal) -> int:
    """Keep all ``children`` running until one exits with a final code or ``stop`` is requested,
    then end them all. Returns the final exit code, else the highest."""
    while not stop.requested:
        for child in children:
            code = child.check(time.monotonic())
            if code is not None:
                end_children(children)
                return code
        if os.getpid() == 1:
            reap_orphans(children)
        stop.wait(POLL_S)
    return end_children(children)


def end_children(children: Sequence[Child], kill_after_s: float = KILL_AFTER_S) -> int:
    """End all children concurrently, within ``kill_after_s``. Returns the highest exit code."""
    deadline_s = time.monotonic() + kill_after_s
    for child in children:
        child.terminate()
    return max(child.end(max(0.0, deadline_s - time.monotonic())) for child in children)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        settings.fail("usage: python -m runtime.supervisor PACKAGE")
    values = settings.load(settings.ProcessSettings)
    logging.configure(values.log_level, values.log_format, f"{arguments[0]}-supervisor")
    os.environ["PYTHONUNBUFFERED"] = "1"
    child = Child([sys.executable, "-m", arguments[0]])
    return run_children([child], lifecycle.StopSignal())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
