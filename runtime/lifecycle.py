"""How a process ends: signals only set state, loops look at it, and no orphan stays behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
from types import FrameType

_PR_SET_PDEATHSIG = 1

DRAIN_S = 4.0
"""Time a process may use to finish after SIGTERM. honcho kills what is left after 5 s."""


class StopSignal:
    """Set by SIGTERM and SIGINT; the handler does nothing else, so it is safe anywhere.

    Not a ``threading.Event``, whose lock is held when it is set and when it is waited for: a
    process is told twice within a moment to end, by honcho and by its supervisor, and the second
    handler would wait for the first one's lock forever.

    Make it on the main thread. Loops poll ``requested`` or wait on it with a time limit.
    """

    def __init__(self) -> None:
        self._requested = False
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.request()

    @property
    def requested(self) -> bool:
        return self._requested

    def request(self) -> None:
        """Ask for the same as SIGTERM does."""
        self._requested = True
        with contextlib.suppress(BlockingIOError):  # A full pipe ends the waiting as well.
            os.write(self._writing, b"\0")

    def wait(self, timeout_s: float) -> bool:
        """Until it is requested, or the time is over; returns whether it is requested."""
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        if not self._requested and poll.poll(timeout_s * 1000):
            # A forked child has our handler until it is another program: its bytes, too, are here.
            with contextlib.suppress(BlockingIOError):
                os.read(self._reading, 4_096)
        return self._requested


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
