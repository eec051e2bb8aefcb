"""How long this gateway takes for one frame: timed from when it is due, through the event loop's
other work and speech detection's queue, as a session's frame would be."""

from __future__ import annotations

import asyncio
import time

from gateway.admission.loop_load import LoopLoad
from gateway.admission.policy import Admission
from gateway.audio.vad import FRAME_BYTES, VadEngine, VadOverloadedError, VadStream

PULSE_EVERY_S = 0.25
RETRY_S = 0.05


async def keep_pulse(vad: VadEngine, admission: Admission) -> None:
    """Tell ``admission`` the gateway's delay, and how busy it is, until cancelled. One more frame
    four times a second is what a hundredth of a live session costs."""
    stream, silence = VadStream(), bytes(FRAME_BYTES)
    load = LoopLoad()
    heard_s, noted_s = vad.heard_s, time.monotonic()
    while True:
        due_s = time.monotonic() + PULSE_EVERY_S
        admission.note_pulse_due(due_s)
        await asyncio.sleep(PULSE_EVERY_S)
        audio_s, span_s = vad.heard_s - heard_s, time.monotonic() - noted_s
        heard_s, noted_s = heard_s + audio_s, noted_s + span_s
        admission.note_busy(load.busy(), noted_s, audio_rate=audio_s / span_s)
        while not await _heard(vad, stream, silence):  # noqa: ASYNC110
            await asyncio.sleep(RETRY_S)
        admission.note_pulse(time.monotonic())


async def _heard(vad: VadEngine, stream: VadStream, pcm: bytes) -> bool:
    try:
        await vad.probabilities(stream, pcm)
    except VadOverloadedError:
        return False  # The pulse is late, and gets later.
    return True
