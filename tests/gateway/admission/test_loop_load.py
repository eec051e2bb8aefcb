from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.admission.loop_load import LoopLoad


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
