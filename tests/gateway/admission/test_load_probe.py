from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gateway.admission import load_probe
from gateway.audio.vad import VadEngine, VadOverloadedError, VadStream


class Noted:
    """What admission is told."""

    def __init__(self) -> None:
        self.due = 0
        self.pulses = 0
        self.busy: list[float] = []
        self.audio_rate: list[float] = []
        self.changed = asyncio.Event()

    def note_pulse_due(self, _due_s: float) -> None:
        self.due += 1

    def note_pulse(self, _now_s: float) -> None:
        self.pulses += 1
        self.changed.set()

    def note_busy(self, share: float, _now_s: float, *, audio_rate: float) -> None:
        self.busy.append(share)
        self.audio_rate.append(audio_rate)

    async def until(self, pulses: int) -> None:
        while self.pulses < pulses:
            self.changed.clear()
            await self.changed.wait()


@contextlib.asynccontextmanager
async def beating(vad: VadEngine, noted: Noted) -> AsyncIterator[None]:
    task = asyncio.create_task(load_probe.keep_pulse(vad, noted))  # type: ignore[arg-type]
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_probe, "PULSE_EVERY_S", 0.001)
    monkeypatch.setattr(load_probe, "RETRY_S", 0.001)


async def test_each_pulse_goes_through_speech_detection() -> None:
    vad, noted = VadEngine(), Noted()
    vad.start()
    try:
        async with beating(vad, noted), asyncio.timeout(10):
            await noted.until(pulses=3)
    finally:
        vad.close()
    assert len(noted.busy) >= 3 and all(0 <= share <= 1 for share in noted.busy)
    # Its own pulses are all it has heard.
    assert noted.audio_rate[0] == 0 and all(0 < x <= 32 for x in noted.audio_rate[1:])


async def test_a_pulse_that_speech_detection_refuses_is_the_same_pulse_later() -> None:
    class FullTwice(VadEngine):
        refusals = 2

        async def probabilities(self, stream: VadStream, pcm: bytes) -> list[float]:
            if self.refusals:
                self.refusals -= 1
                raise VadOverloadedError
            return [0.0]

    noted = Noted()
    async with beating(FullTwice(), noted), asyncio.timeout(10):
        await noted.until(pulses=1)
    assert noted.due <= 2
