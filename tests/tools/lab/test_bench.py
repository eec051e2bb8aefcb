"""The benchmarks run and say what they should; how fast this machine is, is not tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.lab.bench import __main__ as bench
from tools.lab.bench import dispatch, report, results
from tools.lab.bench.figures import Figure

ROOT = Path(__file__).parents[3]


def figure(*, at_least: float | None = None, at_most: float | None = None) -> Figure:
    return Figure(
        what="speed",
        value=10.0,
        unit="m/s",
        reference="another",
        at_least=at_least,
        at_most=at_most,
    )


def measured(*figures: Figure) -> results.Results:
    return results.Results(
        measured_at="today", machine="this one", load_average=0.5, figures={"codec": list(figures)}
    )


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.lab.bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_promises() -> None:
    assert figure().kept is None
    assert figure(at_least=10.0).kept is True
    assert figure(at_least=10.1).kept is False
    assert figure(at_most=10.0).kept is True
    assert figure(at_most=9.9).kept is False
    assert figure(at_most=9.9).verdict == "≤ 9.9 not kept"
    assert figure().shown == "10.0 m/s"


def test_a_run_has_broken_the_promises_that_it_has_not_kept() -> None:
    kept, broken = figure(at_least=1.0), figure(at_least=11.0)
    assert measured(figure(), kept).broken_promises == []
    assert measured(kept, broken).broken_promises == [broken]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> results.Results:
    """Every part, in little time."""
    path = tmp_path_factory.mktemp("bench") / "results.json"
    done = run("--quick", "--save", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "JOB and RESULT" in done.stdout
    return results.read(path)


def test_every_part_measures_something(quick: results.Results) -> None:
    assert tuple(quick.figures) == bench.PARTS
    assert set(report.TITLES) == set(bench.PARTS)
    figures = [each for part in quick.figures.values() for each in part]
    # In so short a time what the gateway adds may come out below the model's own noise, and a
    # process may use less than the hundredth of a second by which its time is counted.
    assert all(each.value >= 0 for each in figures if "added to" not in each.what)
    assert all(each.value > 0 for each in quick.figures["dispatch"] + quick.figures["worker"])


def test_every_process_is_seen_and_the_broker_keeps_workers_busy(quick: results.Results) -> None:
    plots = {
        part: each for part, part_of in quick.figures.items() for each in part_of if each.points
    }
    assert set(plots) == {"dispatch", "cpu_budget"}
    assert {"gateway", "broker", "asr_worker", "persistence"} <= set(plots["cpu_budget"].labels)
    # Loosely: this machine may be busy with other things.
    assert all(efficiency > 50 for _, efficiency in plots["dispatch"].points)


def test_an_unknown_part_is_refused() -> None:
    assert run("weather").returncode == 2


def test_workers_are_spread_over_processes() -> None:
    assert dispatch.fleets(1) == [1]
    assert dispatch.fleets(16) == [16]
    assert dispatch.fleets(33) == [16, 16, 1]


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    drawn = Figure(what="x", value=1, unit="u", reference="r", points=((1.0, 2.0),), labels=("a",))
    written = measured(figure(at_least=1.0), drawn)
    results.write(written, tmp_path / "new" / "results.json")
    assert results.read(tmp_path / "new" / "results.json") == written


def test_the_page_gets_tables_and_plots_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    line = Figure(what="x", value=1, unit="%", reference="r", points=((1.0, 99.0), (2.0, 98.0)))
    bars = Figure(what="y", value=1, unit="ms", reference="r", points=((0.0, 1.0),), labels=("a",))
    run_of_two = results.Results(
        measured_at="t",
        machine="m",
        load_average=0,
        figures={"dispatch": [line], "gateway": [bars]},
    )
    for _ in range(2):
        written = report.write(run_of_two, page)
        text = page.read_text()
        assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
        assert "| x | 1.00 % |  | r |" in text
    assert [path.name for path in written[1:]] == [
        "performance-dispatch.png",
        "performance-gateway.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[1:])
