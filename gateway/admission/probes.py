"""Measurements of this gateway's own load, for admission: the busy share of its event loop, and its
time for one frame of audio."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path

from gateway.admission.policy import Admission
from gateway.audio.vad import FRAME_BYTES, VadEngine, VadOverloadedError, VadStream

PROBE_EVERY_S = 0.25
RETRY_S = 0.05


async def probe_load(vad: VadEngine, admission: Admission) -> None:
    """Report the delay and the busy share to ``admission`` until cancelled.

    The delay is that of a frame of silence from when it is due, through the event loop's other work
    and the queue of speech detection, as a session's frame would take it. Four frames a second cost
    a hundredth of a live session.
    """
    stream, silence = VadStream(), bytes(FRAME_BYTES)
    load = LoopLoad()
    processed_s, noted_s = vad.processed_s, time.monotonic()
    while True:
        due_s = time.monotonic() + PROBE_EVERY_S
        admission.note_probe_due(due_s)
        await asyncio.sleep(PROBE_EVERY_S)
        audio_s, span_s = vad.processed_s - processed_s, time.monotonic() - noted_s
        processed_s, noted_s = processed_s + audio_s, noted_s + span_s
        admission.note_busy(load.busy(), noted_s, audio_rate=audio_s / span_s)
        while True:
            try:
                await vad.probabilities(stream, silence)
                break
            except VadOverloadedError:  # The probe is late, and its delay grows.
                await asyncio.sleep(RETRY_S)
        admission.note_probe(time.monotonic())


class LoopLoad:
    """The busy share of the event loop's thread: the share of time in which it ran, or was ready to
    run and waited for a processor. Near 1, waiting times grow without bound.

    Make it and call it on the event loop's thread. The kernel keeps both sums for each thread in
    ``/proc/PID/task/TID/schedstat`` (nanoseconds). Without that file only processor time counts,
    which misses the waiting.
    """

    def __init__(self, schedstat: Path | None = None) -> None:
        if schedstat is None:
            schedstat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._schedstat = schedstat
        self._busy_s = self._sum_s()
        self._at_s = time.monotonic()

    def busy(self) -> float:
        """Return the share since the last call, from 0 to 1."""
        busy_s, now_s = self._sum_s(), time.monotonic()
        span_s = now_s - self._at_s
        share = (busy_s - self._busy_s) / span_s if span_s > 0 else 0.0
        self._busy_s, self._at_s = busy_s, now_s
        return min(1.0, max(0.0, share))

    def _sum_s(self) -> float:
        with contextlib.suppress(OSError, ValueError):
            ran_ns, waited_ns, _ = self._schedstat.read_text().split()
            return (int(ran_ns) + int(waited_ns)) / 1e9
        return time.thread_time()
