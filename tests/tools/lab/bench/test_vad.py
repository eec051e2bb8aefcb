"""Both networks run on the same frames."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.audio.timeline import FRAME_SAMPLES
from tools.lab.bench import vad


def test_both_networks_take_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "ROUNDS", 1)
    samples = np.zeros((vad.STREAMS, vad.FRAMES, FRAME_SAMPLES), np.int16)
    assert vad.least_us(vad.by_ours(samples)) > 0
    assert vad.least_us(vad.by_package(samples)) > 0
