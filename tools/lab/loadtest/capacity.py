"""Core: the largest number of sessions that meets the targets, by bisection over trials."""

from __future__ import annotations

from collections.abc import Callable


def largest_that_holds(
    holds: Callable[[int], bool], low: int, high: int, step: int
) -> tuple[int, list[tuple[int, bool]]]:
    """Find the largest multiple of ``step`` in ``low..high`` for which ``holds`` is true. ``holds``
    must be true up to some number and false above it.

    Returns:
        That number, or 0 if there is none, and all trials in order.
    """
    trials: list[tuple[int, bool]] = []

    def tried(sessions: int) -> bool:
        trials.append((sessions, holds(sessions)))
        return trials[-1][1]

    if tried(high):
        return high, trials
    held = 0
    while high - low > step:
        middle = (low + high) // 2 // step * step
        middle = middle if middle > low else low + step
        if middle >= high:
            break
        if tried(middle):
            held = low = middle
        else:
            high = middle
    # The lowest number is tried last: it nearly always holds, and a trial takes minutes.
    if not held and low < high and tried(low):
        held = low
    return held, trials
