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

import structlog

from runtime import exit_codes, lifecycle, logging, settings
from runtime.backoff import Backoff

RESTART_DELAY_INITIAL_S = 0.2
RESTART_DELAY_MAX_S = 5.0
HEALTHY_AFTER_S = 10.0
"""A child that lived this long starts the back-off anew."""
POLL_S = 0.1
KILL_AFTER_S = lifecycle.DRAIN_S + 0.5
"""After SIGTERM; beyond it the child is killed."""


def run(command: list[str], stop: lifecycle.StopSignal) -> int:
    """Keep ``command`` running until it ends for good or ``stop`` is requested.

    Returns:
        The exit code for this process.
    """
    log = structlog.get_logger().bind(command=" ".join(command[1:]))
    backoff = Backoff(RESTART_DELAY_INITIAL_S, RESTART_DELAY_MAX_S, random.Random())
    while not stop.requested:
        started_s = time.monotonic()
        child = subprocess.Popen(command, preexec_fn=lifecycle.die_with_parent)
        while child.poll() is None and not stop.requested:
            stop.wait(POLL_S)
        if stop.requested:
            return end_child(child)
        if child.returncode in exit_codes.FINAL:
            return child.returncode
        if time.monotonic() - started_s >= HEALTHY_AFTER_S:
            backoff.reset()
        delay_s = backoff.next_delay_s()
        log.error("child_crashed", exit_code=child.returncode, restart_in_s=round(delay_s, 2))
        stop.wait(delay_s)
    return exit_codes.OK


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
