"""The benchmarks run and say what they should; how fast this machine is, is not tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.bench import broker, codec
from tools.bench.figures import Figure


def figure(**promise: float) -> Figure:
    return Figure(what="speed", value=10.0, unit="m/s", reference="another", **promise)


def test_promises() -> None:
    assert figure().kept is None
    assert figure(at_least=10.0).kept is True
    assert figure(at_least=10.1).kept is False
    assert figure(at_most=10.0).kept is True
    assert figure(at_most=9.9).kept is False


def test_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MEASURE_S", 0.01)
    assert all(each.value > 0 for each in codec.measure())


def test_every_pair_comes_back_from_broker_and_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "PAIRS", 2_500)
    brokered, of_one_core = broker.measure()
    assert brokered.value > 0
    assert of_one_core.value > 0
    assert brokered.at_least == broker.PROMISED_PAIRS_PER_S


def test_the_command_prints_figures_and_refuses_unknown_parts() -> None:
    def run(*parts: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tools.bench", *parts],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )

    measured = run("codec")
    assert measured.returncode == 0
    assert "encoding a Job" in measured.stdout
    assert run("weather").returncode == 2
