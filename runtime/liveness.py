"""How a child shows its supervisor that it is alive and not merely there: a pipe of beats.

The supervisor acts on silence, so a beat must come from whatever could get stuck.
"""

from __future__ import annotations

import contextlib
import os

_FD_VARIABLE = "SUPERVISOR_LIVENESS_FD"


class Liveness:
    """The child's end."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        if fd is not None:
            os.set_blocking(fd, False)

    @classmethod
    def from_environment(cls) -> Liveness:
        """The end that the supervisor gave us; without a supervisor, beats go nowhere."""
        raw = os.environ.pop(_FD_VARIABLE, "")
        return cls(int(raw) if raw.isdigit() else None)

    def beat(self) -> None:
        if self._fd is not None:
            # A full pipe holds enough beats; a closed one means that the supervisor has ended,
            # and then the kernel ends us.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._fd, b"\0")


class LivenessWatch:
    """The supervisor's end for one child. ``close`` it when the child has ended."""

    def __init__(self, silence_s_max: float, now_s: float) -> None:
        self._silence_s_max = silence_s_max
        self._heard_s = now_s
        self._asked_s = now_s
        self._read_fd, self._child_fd = os.pipe()
        os.set_blocking(self._read_fd, False)

    @property
    def child_fds(self) -> tuple[int, ...]:
        """To be passed on to the child (``subprocess.Popen(pass_fds=…)``)."""
        return (self._child_fd,)

    def environment(self) -> dict[str, str]:
        return {_FD_VARIABLE: str(self._child_fd)}

    def is_silent(self, now_s: float) -> bool:
        """Whether the child has not beaten for longer than allowed. Ask several times a second:
        time that passed without asking, because we ourselves were stopped, is not the child's
        silence."""
        pause_s, self._asked_s = now_s - self._asked_s, now_s
        try:
            heard = bool(os.read(self._read_fd, 4096))
        except BlockingIOError:
            heard = False
        if heard:
            self._heard_s = now_s
        elif pause_s > 1.0:
            self._heard_s += pause_s
        return now_s - self._heard_s > self._silence_s_max

    def close(self) -> None:
        os.close(self._read_fd)
        os.close(self._child_fd)
