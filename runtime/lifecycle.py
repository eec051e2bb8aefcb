"""Process termination: signals set a flag, loops poll it, and children die with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal

_PR_SET_PDEATHSIG = 1

DRAIN_S = 4.0
"""Time to finish after SIGTERM. honcho kills its processes after 5 s."""


def stop_signals() -> tuple[signal.Signals, ...]:
    """Signals that ask a process to finish and end. SIGHUP, of a closed terminal, is one of them
    unless it is ignored, as under nohup. Otherwise it would kill the process with what it keeps."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if ignored else (signal.SIGHUP,)))


class StopSignal:
    """A flag set by ``stop_signals``. Create it on the main thread.

    The handlers only set the flag and write to a pipe, which is safe at any point. A
    ``threading.Event`` is not: of two signals at once, from honcho and from the supervisor, the
    second handler would deadlock on the lock that the first one holds.
    """

    def __init__(self) -> None:
        self.requested = False
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        for number in stop_signals():
            signal.signal(number, lambda _number, _frame: self.request())

    def request(self) -> None:
        """Set the flag, as SIGTERM does."""
        self.requested = True
        with contextlib.suppress(BlockingIOError):  # A full pipe wakes waiters, too.
            os.write(self._writing, b"\0")

    def wait(self, timeout_s: float) -> bool:
        """Wait until the flag is set or the timeout expires. Returns the flag."""
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        if not self.requested and poll.poll(timeout_s * 1000):
            # Until a forked child calls exec, it has our handler and writes to our pipe.
            with contextlib.suppress(BlockingIOError):
                os.read(self._reading, 4_096)
        return self.requested


def be_interruptible() -> None:
    """Make ``stop_signals`` raise ``KeyboardInterrupt``, for tools without a polling loop. Also
    SIGINT, which shells set to ignored in background processes."""
    for number in stop_signals():
        signal.signal(number, signal.default_int_handler)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send ``number`` to this process when its parent ends (Linux ``prctl``), so
    that ``kill -9`` of a supervisor leaves no orphan. A no-op on other systems."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return
    parent = os.getppid()
    prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
