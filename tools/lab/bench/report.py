"""Tables and plots of ``docs/performance.md``, from the results of one run."""

from __future__ import annotations

import re
from pathlib import Path

from tools.lab.bench.figures import Figure
from tools.lab.bench.results import Results

PAGE = Path(__file__).parents[3] / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
TITLES = {
    "codec": "The bus's encoding",
    "core": "The broker's core",
    "broker": "The broker with its sockets",
    "dispatch": "Dispatch",
    "worker": "Recognition",
    "streaming": "Streaming recognition",
    "gpu": "Streaming recognition on a GPU",
    "files": "Files through the pipeline",
    "long_file": "A long file beside live sessions",
    "partials": "Partial results of a slow model",
    "real_size": "FunASR's clients on a model of real size",
    "vad": "Speech detection",
    "chunks": "Cost of a chunk in the gateway",
    "gateway": "Gateway and whole pipeline",
    "cpu_budget": "Processor time by process",
    "reconnect": "Two thousand simultaneous reconnections",
    "takeover": "Sessions that move to another gateway",
    "history": "The history of 100,000 sessions",
}
"""The parts of the benchmark, each a module of its name, in their order."""
DOTS_PER_INCH = 120


def tables(results: Results) -> str:
    """The measured part of the page."""
    lines = [
        f"Measured {results.measured_at} on {results.machine}; load average before the run "
        f"{results.load_average}.",
    ]
    for part, figures in results.figures.items():
        lines += ["", f"### {TITLES[part]}", "", "| figure | value | promise | reference |"]
        lines.append("| --- | --- | --- | --- |")
        lines += [
            f"| {each.what} | {each.shown} | {each.verdict} | {each.reference} |"
            for each in figures
        ]
    return "\n".join(lines)


def write(results: Results, page: Path = PAGE) -> list[Path]:
    """Write the results into ``page`` and plots beside it; return the paths written."""
    text = page.read_text()
    measured = f"{BEGIN}\n{tables(results)}\n{END}"
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    assert pattern.search(text), f"{page} has no results section"
    page.write_text(pattern.sub(lambda _: measured, text))
    return [page, *_plots(results, page.parent)]


def _plots(results: Results, folder: Path) -> list[Path]:
    written = []
    for part, figures in results.figures.items():
        for figure in figures:
            if figure.points:
                path = folder / f"performance-{part}.png"
                _plot(figure, path)
                written.append(path)
    return written


def _plot(figure: Figure, path: Path) -> None:
    # Imported late: only writing the page needs it.
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(7, 3.5), layout="constrained")
    axes = drawing.subplots()
    if figure.labels:
        axes.barh(figure.labels, [y for _, y in figure.points], color="#3b6ea5")
        axes.invert_yaxis()
        axes.set_xlabel(figure.unit)
    else:
        axes.plot(*zip(*figure.points, strict=True), marker="o", color="#3b6ea5")
        axes.set_xscale("log", base=2)
        axes.set_xticks([x for x, _ in figure.points], [f"{x:.0f}" for x, _ in figure.points])
        axes.set_ylabel(figure.unit)
        axes.set_ylim(0, 105)
        axes.grid(alpha=0.3)
        if figure.at_least is not None:
            axes.axhline(figure.at_least, linestyle="--", color="#a53b3b")
    axes.set_title(figure.what, fontsize=10)
    drawing.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
