"""The part for GPUs: its measurements run on any device."""

from __future__ import annotations

import pytest
import torch

from tools.lab.bench import gpu
from tools.lab.random_paraformer import TINY


def test_a_machine_without_a_gpu_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (figure,) = gpu.measure()
    assert (figure.value, figure.kept) == (0, None)
    assert "without one nothing more is measured" in figure.reference


def test_streams_are_measured_beside_funasr_and_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BATCHES", (1, 2))
    figure = gpu.figure("cpu", TINY, "float32")
    assert figure.value > 0
    for part in ("streams of 3 + 2 layers on cpu", "float32"):
        assert part in figure.what
    for part in ("1: ", "2: ", "FunASR one by one", "bound by the arithmetic"):
        assert part in figure.reference
