"""The probes: the delay of a frame, and how busy the event loop is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.admission import probes
from gateway.admission.probes import LoopLoad
from gateway.audio.vad import VadEngine, VadOverloadedError, VadStream


class Noted:
    """The measurements that admission gets."""

    def __init__(self) -> None:
        self.due = 0
        self.probes_passed = 0
        self.busy: list[float] = []
        self.audio_rate: list[float] = []
        self.changed = asyncio.Event()

    def note_probe_due(self, _due_s: float) -> None:
        self.due += 1

    def note_probe(self, _now_s: float) -> None:
        self.probes_passed += 1
        self.changed.set()

    def note_busy(self, share: float, _now_s: float, *, audio_rate: float) -> None:
        self.busy.append(share)
        self.audio_rate.append(audio_rate)

    async def until(self, probes_passed: int) -> None:
        while self.probes_passed < probes_passed:
            self.changed.clear()
            await self.changed.wait()


@contextlib.asynccontextmanager
async def probing(vad: VadEngine, noted: Noted) -> AsyncIterator[None]:
    task = asyncio.create_task(probes.probe_load(vad, noted))  # type: ignore[arg-type]
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBE_EVERY_S", 0.001)
    monkeypatch.setattr(probes, "RETRY_S", 0.001)


async def test_each_probe_goes_through_speech_detection() -> None:
    vad, noted = VadEngine(), Noted()
    vad.start()
    try:
        async with probing(vad, noted), asyncio.timeout(10):
            await noted.until(probes_passed=3)
    finally:
        vad.close()
    assert len(noted.busy) >= 3 and all(0 <= share <= 1 for share in noted.busy)
    # Speech detection has processed nothing but probes.
    assert noted.audio_rate[0] == 0 and all(0 < x <= 32 for x in noted.audio_rate[1:])


async def test_a_probe_that_speech_detection_refuses_is_tried_again_and_is_late() -> None:
    class FullTwice(VadEngine):
        refusals = 2

        async def probabilities(self, stream: VadStream, pcm: bytes) -> list[float]:
            if self.refusals:
                self.refusals -= 1
                raise VadOverloadedError
            return [0.0]

    noted = Noted()
    async with probing(FullTwice(), noted), asyncio.timeout(10):
        await noted.until(probes_passed=1)
    assert noted.due <= 2


def work(seconds: float) -> None:
    until_s = time.thread_time() + seconds
    while time.thread_time() < until_s:
        pass


@pytest.mark.parametrize("source", ["kernel's sums", "processor time"])
def test_a_thread_that_works_is_busy_and_one_that_sleeps_is_not(
    source: str, tmp_path: Path
) -> None:
    load = LoopLoad(None if source == "kernel's sums" else tmp_path / "not there")
    time.sleep(0.2)
    # Even on a busy machine a thread that sleeps waits for nothing.
    idle = load.busy()
    work(0.2)
    assert idle < load.busy() <= 1.0


def test_waiting_for_a_processor_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedstat, now_s = tmp_path / "schedstat", 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    schedstat.write_text("1000000000 500000000 7\n")
    load = LoopLoad(schedstat)
    schedstat.write_text("1300000000 700000000 9\n")
    now_s = 101.0
    assert load.busy() == pytest.approx(0.5)
    now_s = 102.0
    assert load.busy() == 0.0
    assert load.busy() == 0.0  # No time has passed.
