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


@pytest.fixture
def stop() -> Iterator[lifecycle.StopSignal]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield lifecycle.StopSignal()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_only_sets_state(stop: lifecycle.StopSignal, number: signal.Signals) -> None:
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.wait(30)
    assert stop.requested
    os.kill(os.getpid(), number)  # A second one changes nothing.
    assert stop.requested


def test_a_signal_ends_the_waiting(stop: lifecycle.StopSignal) -> None:
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert stop.wait(60)


def test_request_does_the_same(stop: lifecycle.StopSignal) -> None:
    stop.request()
    assert stop.wait(0)


def test_waiting_has_an_end(stop: lifecycle.StopSignal) -> None:
    assert not stop.wait(0.01)


# A parent that starts a child, waits for it to be ready, and ends without a word.
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
    # Standard output ends, and with it this, when the last process that holds it does.
    subprocess.run(
        [sys.executable, "-c", PARENT, str(int(number))],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )


def test_draining_is_shorter_than_honchos_patience() -> None:
    honcho_kills_after_s = 5
    assert honcho_kills_after_s > lifecycle.DRAIN_S
