"""asyncio's event loop, which takes several messages at a time while there are many clients.

Each wait for sockets costs two context switches and a pass through the timers: a fifth of a
gateway's time for a chunk of audio. With hundreds of clients the next message arrives within a
millisecond, so the loop pauses first, and then takes all messages that have arrived. Timers are not
delayed. With few clients the loop never pauses, however fast they send.
"""

from __future__ import annotations

import asyncio
import selectors
import time

PAUSE_S = 0.008
"""Longest delay of a message by the pause, small beside the 50 ms of a turn of speech detection."""
WINDOW_S = 0.1
SOCKETS_MANY = 40
"""The loop pauses if this many sockets were ready within ``WINDOW_S``: about eighty live clients,
which send five chunks a second."""


class PausingSelector(selectors.DefaultSelector):
    """Waits ``PAUSE_S`` before it polls, while many sockets are in use."""

    def __init__(self) -> None:
        super().__init__()
        self._used: set[int] = set()
        """File descriptors that were ready in the current window."""
        self._window_ends_s = 0.0
        self._pauses = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._pauses and (timeout is None or timeout > 0):
            pause_s = PAUSE_S if timeout is None else min(timeout, PAUSE_S)
            time.sleep(pause_s)
            if timeout is not None:
                timeout -= pause_s
        ready = super().select(timeout)
        self._used.update([key.fd for key, _ in ready])
        now_s = time.monotonic()
        if now_s >= self._window_ends_s:
            self._pauses = len(self._used) >= SOCKETS_MANY
            self._used.clear()
            self._window_ends_s = now_s + WINDOW_S
        return ready


def new_event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(PausingSelector())
