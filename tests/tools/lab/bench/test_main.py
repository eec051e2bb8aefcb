"""Every part of the benchmark runs. The speed of this machine is not tested."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tools.lab.bench import __main__ as bench
from tools.lab.bench import results
from tools.lab.bench.figures import Figure
from tools.lab.harness.process import ROOT

pytestmark = pytest.mark.timeout(600)
"""Every part starts processes of its own, on a machine that may be busy."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.lab.bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Figure]]:
    """The figures of every part, in little time. Parts wait for most of theirs, so there are two
    processes."""
    folder = tmp_path_factory.mktemp("bench")
    halves = {folder / f"{first}.json": bench.PARTS[first::2] for first in range(2)}
    with ThreadPoolExecutor() as pool:
        ended = pool.map(
            lambda path: run("--quick", "--save", str(path), *halves[path]), list(halves)
        )
    for done in ended:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "promise" in done.stdout
    return {part: each for path in halves for part, each in results.read(path).figures.items()}


def test_every_part_measures_something(quick: dict[str, list[Figure]]) -> None:
    assert quick.keys() == set(bench.PARTS)
    figures = [each for part in quick.values() for each in part]
    # In so short a time what the gateway adds may come out below the model's own noise, and a
    # process may use less than the hundredth of a second by which its time is counted.
    assert all(each.value >= 0 for each in figures if "added to" not in each.what)
    assert all(each.value > 0 for each in quick["dispatch"] + quick["worker"])


def keeps_workers_busy(dispatch: list[Figure]) -> bool:
    """Loosely: this machine may be busy with other things."""
    (plot,) = (figure for figure in dispatch if figure.points)
    return all(efficiency > 50 for _, efficiency in plot.points)


def test_every_process_is_seen_and_the_broker_keeps_workers_busy(
    quick: dict[str, list[Figure]], tmp_path: Path
) -> None:
    plots = {part: each for part, part_of in quick.items() for each in part_of if each.points}
    assert set(plots) == {"dispatch", "cpu_budget"}
    assert {"gateway", "broker", "asr_worker", "persistence"} <= set(plots["cpu_budget"].labels)
    dispatch, path = quick["dispatch"], tmp_path / "again.json"
    for _ in range(5):  # It may have been kept still in the second that was measured.
        if keeps_workers_busy(dispatch):
            break
        assert run("--quick", "--save", str(path), "dispatch").returncode == 0
        dispatch = results.read(path).figures["dispatch"]
    assert keeps_workers_busy(dispatch)


def test_an_unknown_part_is_refused() -> None:
    assert run("weather").returncode == 2
