"""How a process ends: signals only set state, loops look at it, and no orphan stays behind."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from types import FrameType

_PR_SET_PDEATHSIG = 1

DRAIN_S = 4.0
"""Time a process may use to finish after SIGTERM. honcho kills what is left after 5 s."""


class StopSignal:
    """Set by SIGTERM and SIGINT; the handler does nothing else, so it is safe anywhere.

    Make it on the main thread. Loops poll ``requested`` or wait on it with a time limit.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._event.set()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self) -> None:
        """Ask for the same as SIGTERM does."""
        self._event.set()

    def wait(self, timeout_s: float) -> bool:
        return self._event.wait(timeout_s)


def be_interruptible() -> None:
    """Have SIGTERM and SIGINT raise ``KeyboardInterrupt``: for tools, which are ended by what they
    are doing, not by loops that look. SIGINT too, because shells have it ignored in what they start
    in the background."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send ``number`` when the parent ends (Linux ``prctl``), so that killing a
    supervisor with -9 leaves no orphan. Elsewhere a no-op: the parent's pipe closing must do."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return
    parent = os.getppid()
    prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
