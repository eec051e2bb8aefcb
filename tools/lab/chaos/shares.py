"""The rows of a long plan shared out over several systems of their own, side by side.

A system under 24 sessions waits more than it computes, so that two of them hardly disturb each
other. Each is a process of its own, for the small disks are mounted for a process.
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
"""For a share that is told to stop to take its system down; then it is killed."""
FIRST_ROW = "1 of "

T = TypeVar("T")


def of_plan(plan: Sequence[T], share: str | None) -> list[T]:
    """What share ``"2/3"`` has of ``plan``: every third, from the second on.

    Raises:
        ValueError: if it is not of that form.
    """
    if share is None:
        return list(plan)
    number, _, count = share.partition("/")
    if not 1 <= int(number) <= int(count):
        raise ValueError(f"no share {share!r}")
    return list(plan[int(number) - 1 :: int(count)])


def run(
    command: Sequence[str], count: int, directory: Path, tell: Callable[[str], None]
) -> tuple[list[Row], list[str]]:
    """``command --share n/count --out …`` for each n, side by side; what they print goes to
    ``tell`` line by line, from threads.

    Returns:
        All rows, and what is wrong besides: shares that ended without a report.
    """
    numbers = range(1, count + 1)
    rows: list[Row] = []
    problems = []
    with contextlib.ExitStack() as running:
        shares = {}
        for number in numbers:
            out = directory / str(number)
            arguments = [*command, "--share", f"{number}/{count}", "--out", str(out)]
            child, begun = running.enter_context(_running(arguments, f"[{number}] ", tell))
            shares[number] = child, out
            # Free ports are only free as long as nobody else looks for some.
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
    arguments: Sequence[str], prefix: str, tell: Callable[[str], None]
) -> Iterator[tuple[subprocess.Popen[str], threading.Event]]:
    """The process, and whether its first row has begun, or it has ended."""
    begun = threading.Event()
    child = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, errors="replace")
    assert child.stderr is not None
    pipe: IO[str] = child.stderr

    def read() -> None:
        for line in pipe:
            if line.startswith(FIRST_ROW):
                begun.set()
            tell(prefix + line.rstrip("\n"))
        begun.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield child, begun
    finally:
        if child.poll() is None:
            # As a person does it, so that it takes its system down.
            child.send_signal(signal.SIGINT)
        try:
            child.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        reader.join()
        pipe.close()
