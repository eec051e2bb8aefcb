"""Results of a run, written and read."""

from __future__ import annotations

from pathlib import Path

from tests.tools.lab.bench.test_figures import figure
from tools.lab.bench import results
from tools.lab.bench.figures import Figure


def measured(*figures: Figure) -> results.Results:
    return results.Results(
        measured_at="today", machine="this one", load_average=0.5, figures={"codec": list(figures)}
    )


def test_a_run_has_broken_the_promises_that_it_has_not_kept() -> None:
    kept, broken = figure(at_least=1.0), figure(at_least=11.0)
    assert measured(figure(), kept).broken_promises == []
    assert measured(kept, broken).broken_promises == [broken]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    drawn = Figure(what="x", value=1, unit="u", reference="r", points=((1.0, 2.0),), labels=("a",))
    written = measured(figure(at_least=1.0), drawn)
    results.write(written, tmp_path / "new" / "results.json")
    assert results.read(tmp_path / "new" / "results.json") == written
