"""Liveness of a child process: it writes beats to a pipe, and its supervisor acts on silence.

A beat proves progress only if it comes from the loop that could hang.
"""

from __future__ import annotations

import contextlib
import os

_FD_VARIABLE = "SUPERVISOR_LIVENESS_FD"
START_FACTOR = 8
"""Before its first beat a child may be silent this many times longer: importing its packages takes
long on a busy host. If it were killed then, it would start over and never become ready."""


class Liveness:
    """The child's end of the pipe. Without one from a supervisor, beats are discarded."""

    def __init__(self) -> None:
        raw = os.environ.pop(_FD_VARIABLE, "")
        self._fd = int(raw) if raw.isdigit() else None
        if self._fd is not None:
            os.set_blocking(self._fd, False)

    def beat(self) -> None:
        if self._fd is not None:
            # A full pipe holds unread beats. A closed one means that the supervisor has ended; the
            # kernel then ends this process, too.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._fd, b"\0")


class LivenessWatch:
    """The supervisor's end of the pipe of one child. Call ``close`` when the child has ended."""

    def __init__(self, silence_s_max: float, now_s: float) -> None:
        self._silence_s_max = silence_s_max
        self._last_beat_s = now_s + (START_FACTOR - 1) * silence_s_max
        self._last_call_s = now_s
        self._read_fd, self.child_fd = os.pipe()
        """``child_fd`` is for the child to inherit (``subprocess.Popen(pass_fds=…)``)."""
        os.set_blocking(self._read_fd, False)

    def environment(self) -> dict[str, str]:
        return {_FD_VARIABLE: str(self.child_fd)}

    def is_silent(self, now_s: float) -> bool:
        """Whether the last beat is older than the limit. Call several times a second: in a gap of
        more than 1 s the supervisor itself was stopped, which is no silence of the child."""
        gap_s, self._last_call_s = now_s - self._last_call_s, now_s
        try:
            beaten = bool(os.read(self._read_fd, 4096))
        except BlockingIOError:
            beaten = False
        if beaten:
            self._last_beat_s = now_s
        elif gap_s > 1.0:
            self._last_beat_s += gap_s
        return now_s - self._last_beat_s > self._silence_s_max

    def close(self) -> None:
        os.close(self._read_fd)
        os.close(self.child_fd)
