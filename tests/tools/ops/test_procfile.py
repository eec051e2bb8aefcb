"""honcho as a child process."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tools.ops.procfile import Honcho, without_prefix

SLEEPS = "exec python -c 'import time; print(\"up\", flush=True); time.sleep(600)'"
STUBBORN = (
    "exec python -c 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    'print("up", flush=True); time.sleep(600)\''
)
WAIT_S = 30


class Running:
    def __init__(self, directory: Path, procfile: str, concurrency: str = "") -> None:
        (directory / "Procfile").write_text(procfile)
        self.lines: queue.Queue[str] = queue.Queue()
        self.honcho = Honcho(self.lines.put, concurrency, directory)

    def await_line(self, text: str) -> str:
        while text not in (line := self.lines.get(timeout=WAIT_S)):
            pass
        return line


def assert_gone(processes: list[psutil.Process]) -> None:
    """Each has ended or is ending; the init process reaps the zombies of orphans."""
    until_s = time.monotonic() + WAIT_S
    while alive := [process for process in processes if lives(process)]:
        assert time.monotonic() < until_s, alive
        time.sleep(0.01)


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[psutil.Process]]:
    """Processes that a test adds; all of them must have ended."""
    known: list[psutil.Process] = []
    yield known
    assert known
    assert_gone(known)


def descendants(running: Running) -> list[psutil.Process]:
    process = psutil.Process(running.honcho.pid)
    return [process, *process.children(recursive=True)]


def test_the_environment_is_that_of_this_process(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HOME=/other\n")
    running = Running(tmp_path, "one: exec echo home=$HOME\n")
    try:
        assert "/other" not in running.await_line("home=")
    finally:
        running.honcho.stop()


def test_stop_leaves_no_process(tmp_path: Path, processes: list[psutil.Process]) -> None:
    running = Running(tmp_path, f"one: {SLEEPS}\ntwo: {SLEEPS}\n", "two=2")
    for _ in range(3):
        running.await_line("| up")
    processes += descendants(running)
    assert running.honcho.exit_code is None
    running.honcho.stop()
    assert running.honcho.exit_code is not None


def test_stop_kills_processes_that_ignore_it(
    tmp_path: Path, processes: list[psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.ops.procfile.STOP_S_MAX", 0.5)
    running = Running(tmp_path, f"one: {STUBBORN}\n")
    running.await_line("| up")
    processes += descendants(running)
    running.honcho.stop()


def test_the_end_of_one_process_ends_all_and_its_error_is_kept(tmp_path: Path) -> None:
    fails = "sh -c 'echo error: PORT is taken >&2; exit 69'"
    running = Running(tmp_path, f"one: {SLEEPS}\ntwo: {fails}\n")
    running.await_line("one.1 stopped")
    running.honcho.stop()
    assert running.honcho.exit_code == 69
    assert running.honcho.errors == ["two: PORT is taken"]


def test_a_killed_honcho_leaves_no_process(tmp_path: Path, processes: list[psutil.Process]) -> None:
    running = Running(tmp_path, f"one: {SLEEPS}\n")
    running.await_line("| up")
    processes += descendants(running)
    psutil.Process(running.honcho.pid).kill()
    running.honcho.stop()


def test_a_killed_parent_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text(f"one: {SLEEPS}\n")
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, sys, time; from tools.ops.procfile import Honcho;"
            "Honcho(lambda line: print(line, flush=True), '', pathlib.Path(sys.argv[1]));"
            "time.sleep(600)",
            str(tmp_path),
        ],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert owner.stdout is not None
    with contextlib.closing(owner.stdout):
        for line in owner.stdout:
            if "| up" in line:
                break
        left = psutil.Process(owner.pid).children(recursive=True)
        assert left
        owner.kill()
        owner.wait()
    assert_gone(left)


def test_json_lines_are_shown_without_the_prefix_of_honcho() -> None:
    assert without_prefix('12:00:00 gateway.1     | {"event":"a | {"}') == '{"event":"a | {"}'
    for line in ("12:00:00 gateway.1 | error: {", "12:00:00 system | gateway.1 started (pid=1)"):
        assert without_prefix(line) == line
