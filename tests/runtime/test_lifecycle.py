from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import lifecycle
from tools.lab.harness.process import ROOT


@pytest.fixture
def stop() -> Iterator[lifecycle.StopSignal]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Test runners may ignore it.
    yield lifecycle.StopSignal()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_only_sets_the_flag(stop: lifecycle.StopSignal, number: signal.Signals) -> None:
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.wait(30)
    assert stop.requested
    os.kill(os.getpid(), number)  # A second one changes nothing.
    assert stop.requested


def run_apart(program: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )


@pytest.mark.parametrize("package", ["asr_worker", "broker", "gateway", "persistence"])
def test_process_1_ends_by_sigterm_before_it_is_ready(package: str) -> None:
    process_1 = ("unshare", "--user", "--pid", "--fork", sys.executable, "-c")
    if subprocess.run([*process_1, ""], capture_output=True, check=False).returncode:
        pytest.skip("needs process namespaces")
    program = f"import os, {package}; os.kill(1, {signal.SIGTERM:d}); print('alive')"
    done = subprocess.run([*process_1, program], cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"")


def test_sighup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert lifecycle.stop_signals() == (signal.SIGTERM, signal.SIGINT)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_ends_the_wait(stop: lifecycle.StopSignal) -> None:
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert stop.wait(60)


def test_request_sets_the_flag(stop: lifecycle.StopSignal) -> None:
    stop.request()
    assert stop.wait(0)


def test_the_wait_times_out(stop: lifecycle.StopSignal) -> None:
    assert not stop.wait(0.01)


# A child sends signals in a tight loop while the parent waits repeatedly.
SIGNALLED_OFTEN = """
import os, signal
from runtime import lifecycle
stop = lifecycle.StopSignal()
if os.fork() == 0:
    for _ in range(20_000):
        os.kill(os.getppid(), signal.SIGTERM)
    os._exit(0)
while os.waitpid(-1, os.WNOHANG) == (0, 0):
    stop.wait(0.001)
assert stop.requested
"""


def test_a_signal_may_arrive_at_any_point_even_in_a_handler() -> None:
    run_apart(SIGNALLED_OFTEN)


# A forked child receives SIGTERM before exec; its parent does not.
CHILD_SIGNALLED = """
import os, signal, time
from runtime import lifecycle
stop = lifecycle.StopSignal()
if (child := os.fork()) == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0 if stop.wait(60) else 1)
assert os.waitpid(child, 0)[1] == 0
stop.wait(0.01)
began_s = time.monotonic()
assert not stop.wait(0.2)
assert time.monotonic() - began_s >= 0.2
"""


def test_a_signal_to_a_forked_child_does_not_set_the_parents_flag() -> None:
    run_apart(CHILD_SIGNALLED)


# A parent that starts a child, waits until it is ready, and exits.
PARENT = """
import os, sys, time
from runtime import lifecycle
reading, writing = os.pipe()
if os.fork() == 0:
    lifecycle.die_with_parent(int(sys.argv[1]))
    os.write(writing, b"x")
    time.sleep(600)
os.read(reading, 1)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent(number: signal.Signals) -> None:
    # Standard output is closed only when the last process that holds it has ended.
    run_apart(PARENT, str(int(number)))


def test_draining_ends_before_honcho_kills() -> None:
    honcho_kills_after_s = 5
    assert honcho_kills_after_s > lifecycle.DRAIN_S
