"""Faults inside a worker: it hangs, slows down, or is killed by one utterance.

``System`` puts a ``sitecustomize`` that calls ``arm`` first on the workers' import path, so the
product needs no hook. Files in a directory are the orders to workers.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

DIRECTORY_VARIABLE: Final = "CHAOS_DIRECTORY"
POISON: Final = bytes.fromhex("ff7f0080") * 24
"""Audio that kills a worker: full-scale samples in a pattern that no voice produces."""
HANG_S: Final = 3_600.0
SLOWNESS: Final = 10.0
SITECUSTOMIZE: Final = "from tools.lab.chaos import sabotage\n\nsabotage.arm()\n"


def arm() -> None:
    """In a worker process, wrap its recogniser; in any other process, do nothing."""
    if "asr_worker.service" not in sys.orig_argv or DIRECTORY_VARIABLE not in os.environ:
        return
    from asr_worker import inference

    directory = Path(os.environ[DIRECTORY_VARIABLE])
    inference._recognize = sabotaged(inference._recognize, directory)


def sabotaged(recognize: Callable[..., Any], directory: Path) -> Callable[..., Any]:
    """``recognize(recognizer, jobs)`` that obeys the orders in ``directory``."""

    def obeying(recognizer: Any, jobs: Sequence[Any]) -> Any:
        if any(POISON in job.pcm for job in jobs):
            os.abort()
        if take(directory / "hang"):
            time.sleep(HANG_S)
        began_s = time.monotonic()
        recognitions = recognize(recognizer, jobs)
        if is_ours(directory / "slow"):
            time.sleep((SLOWNESS - 1) * (time.monotonic() - began_s))
        return recognitions

    return obeying


def take(order: Path) -> bool:
    """Whether this process is the first to find ``order``, and must carry it out."""
    try:
        order.rename(order.with_suffix(f".{os.getpid()}"))
    except FileNotFoundError:
        return False
    return True


def is_ours(order: Path) -> bool:
    """The same for an order that lasts until it is withdrawn; it holds the pid of its process."""
    try:
        holder = order.read_text()
    except FileNotFoundError:
        return False
    if not holder:
        order.write_text(str(os.getpid()))
        return True
    return holder == str(os.getpid())
