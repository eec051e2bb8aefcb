"""``python -m runtime.supervisor PACKAGE``: run ``python -m PACKAGE`` and restart it when it
crashes. honcho stops everything when one of its processes ends, so each Procfile line restarts
its own.

A wrong setting or a taken port (``exit_codes.FINAL``) is not a crash: it ends the supervisor with
the same code, so that the operator sees one clear line instead of a crash loop.
"""

from __future__ import annotations

import os
import random
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
"""A child that lived this long starts the back-off anew."""
POLL_S = 0.1
KILL_AFTER_S = lifecycle.DRAIN_S + 0.5
"""After SIGTERM; beyond it the child is killed."""


class Child:
    """One command, kept running. ``check`` it several times a second."""

    def __init__(
        self,
        command: list[str],
        *,
        environment: Mapping[str, str] | None = None,
        final: frozenset[int] = exit_codes.FINAL,
        silence_s_max: float | None = None,
    ) -> None:
        """``environment`` is added to ours; an exit code in ``final`` is no crash; a child that
        does not beat (``runtime.liveness``) for ``silence_s_max`` is killed and restarted."""
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
        """Of the running process; None between two lives."""
        return None if self._process is None else self._process.pid

    def check(self, now_s: float) -> int | None:
        """Start, restart or kill the process if it is time to. Returns its exit code if it ended
        for good."""
        if self._process is None:
            if now_s >= self._start_at_s:
                self._try_to_start(now_s)
            return None
        if self._watch is not None and self._watch.is_silent(now_s):
            self._log.error("child_hangs", pid=self.pid, silence_s_max=self._silence_s_max)
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
        self._log.error("child_ended", exit_code=code, restart_in_s=self._put_off(now_s))
        return None

    def _put_off(self, now_s: float) -> float:
        """For how long the next start is."""
        delay_s = self._backoff.next_delay_s()
        self._start_at_s = now_s + delay_s
        return round(delay_s, 2)

    def _try_to_start(self, now_s: float) -> None:
        try:
            self._start(now_s)
        except OSError as error:  # No memory, or no process, to be had at the moment.
            self._forget()
            delay_s = self._put_off(now_s)
            self._log.error("child_not_started", error=error.strerror, restart_in_s=delay_s)

    def terminate(self) -> None:
        """SIGTERM; ``end`` collects what it leads to."""
        if self._process is not None:
            self._process.terminate()

    def end(self, kill_after_s: float = KILL_AFTER_S) -> int:
        """SIGTERM, wait, SIGKILL. Returns the exit code, 0 if it ended as asked or was not
        running."""
        if self._process is None:
            return exit_codes.OK
        code = end_child(self._process, kill_after_s)
        self._forget()
        return code

    def _start(self, now_s: float) -> None:
        pass_fds: Sequence[int] = ()
        environment = {**os.environ, **self._environment}
        if self._silence_s_max is not None:
            self._watch = LivenessWatch(self._silence_s_max, now_s)
            pass_fds = self._watch.child_fds
            environment.update(self._watch.environment())
        self._started_s = now_s
        self._process = subprocess.Popen(
            self._command,
            env=environment,
            pass_fds=pass_fds,
            preexec_fn=lifecycle.die_with_parent,
        )

    def _forget(self) -> None:
        self._process = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def run(command: list[str], stop: lifecycle.StopSignal) -> int:
    """Keep ``command`` running until it ends for good or ``stop`` is requested.

    Returns:
        The exit code for this process.
    """
    return run_children([Child(command)], stop)


def run_children(children: Sequence[Child], stop: lifecycle.StopSignal) -> int:
    """Keep all ``children`` running until one ends for good or ``stop`` is requested, then end
    them all.

    Returns:
        The exit code for this process: that of the child that ended for good, else the highest.
    """
    while not stop.requested:
        for child in children:
            code = child.check(time.monotonic())
            if code is not None:
                end_children(children)
                return code
        stop.wait(POLL_S)
    return end_children(children)


def end_children(children: Sequence[Child], kill_after_s: float = KILL_AFTER_S) -> int:
    """End all at once; together they get ``kill_after_s``. Returns the highest exit code."""
    deadline_s = time.monotonic() + kill_after_s
    for child in children:
        child.terminate()
    return max(child.end(max(0.0, deadline_s - time.monotonic())) for child in children)


def end_child(child: subprocess.Popen[bytes], kill_after_s: float = KILL_AFTER_S) -> int:
    """SIGTERM, wait, SIGKILL. Returns the child's exit code, 0 if it ended as asked."""
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        structlog.get_logger().error("child_killed", pid=child.pid, after_s=kill_after_s)
        child.kill()
        child.wait()
    return max(child.returncode, 0)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        settings.fail("usage: python -m runtime.supervisor PACKAGE")
    values = settings.load(settings.ProcessSettings)
    logging.configure(values.log_level, values.log_format, f"{arguments[0]}-supervisor")
    os.environ["PYTHONUNBUFFERED"] = "1"
    return run([sys.executable, "-m", arguments[0]], lifecycle.StopSignal())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
