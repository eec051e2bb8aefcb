"""The page with tables and plots."""

from __future__ import annotations

from pathlib import Path

from tools.lab.bench import report, results
from tools.lab.bench.figures import Figure


def test_every_module_that_measures_is_a_part_with_a_title() -> None:
    modules = Path(report.__file__).parent.glob("*.py")
    measuring = {path.stem for path in modules if "def measure(" in path.read_text()}
    assert measuring == set(report.TITLES)


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
