"""The rows of a long plan, divided among several systems side by side.

A system under 24 sessions waits more than it computes, so two of them hardly disturb each other.
Each has a process of its own, because small disks are mounted per process.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar

from tools.lab.chaos import report
from tools.lab.chaos.rows import Row

END_S_MAX = 60.0
"""From SIGINT to a share to SIGKILL: it has to stop its system."""
FIRST_ROW = "1 of "

T = TypeVar("T")


def of_plan(plan: Sequence[T], share: str | None) -> list[T]:
    """The rows of share ``"2/3"``: every third row of ``plan``, from the second on.

    Raises:
        ValueError: if ``share`` has another form.
    """
    if share is None:
        return list(plan)
    number, _, count = share.partition("/")
    if not 1 <= int(number) <= int(count):
        raise ValueError(f"no share {share!r}")
    return list(plan[int(number) - 1 :: int(count)])


def run(
    command: Sequence[str], count: int, directory: Path, show: Callable[[str], None]
) -> tuple[list[Row], list[str]]:
    """Run ``command --share n/count --out …`` for each n, side by side. ``show`` gets each line
    they print, on other threads.

    Returns:
        All rows, and the problems of shares that ended without a report.
    """
    numbers = range(1, count + 1)
    rows: list[Row] = []
    problems = []
    with contextlib.ExitStack() as running:
        shares = {}
        for number in numbers:
            out = directory / str(number)
            arguments = [*command, "--share", f"{number}/{count}", "--out", str(out)]
            child, begun = running.enter_context(_running(arguments, f"[{number}] ", show))
            shares[number] = child, out
            # Two systems that look for free ports at once could find the same ones.
            begun.wait()
        for number, (child, out) in shares.items():
            status = child.wait()
            found = report.read(out)
            rows += found
            if status not in (0, 1) or not found:
                problems.append(f"share {number} ended with {status} and {len(found)} rows")
    return rows, problems


@contextlib.contextmanager
def _running(
    arguments: Sequence[str], prefix: str, show: Callable[[str], None]
) -> Iterator[tuple[subprocess.Popen[str], threading.Event]]:
    """The process, and an event that is set when its first row begins or it ends."""
    begun = threading.Event()
    child = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, errors="replace")
    assert child.stderr is not None
    pipe: IO[str] = child.stderr

    def read() -> None:
        for line in pipe:
            if line.startswith(FIRST_ROW):
                begun.set()
            show(prefix + line.rstrip("\n"))
        begun.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield child, begun
    finally:
        if child.poll() is None:
            # It then stops its system.
            child.send_signal(signal.SIGINT)
        try:
            child.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        reader.join()
        pipe.close()
