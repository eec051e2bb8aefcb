"""``python -m tools.lab.bench [PART]…``: run benchmarks, by default all parts.

Figures depend on the machine and on its other load: compare each with its reference. Exit code 1: a
promise is not kept on this machine now.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from runtime import lifecycle, logging
from tools.lab.bench import report, results
from tools.lab.bench.figures import Figure

PIPED_WIDTH_CHARS = 160
RESULTS = Path("bench-results/results.json")
PARTS = tuple(report.TITLES)
QUICK: dict[str, dict[str, object]] = {
    "codec": {"MEASURE_S": 0.02},
    "core": {"PAIRS": 1_000, "ROUNDS": 1, "LARGE": (20, 1_000)},
    "broker": {"PAIRS": 2_500, "ROUNDS": 1},
    "dispatch": {"WORKERS": (1, 2, 17), "MEASURE_S": 0.6, "WARM_S": 0.1},
    "worker": {"UTTERANCES": 32, "ONE_BY_ONE": 4, "ROUNDS": 1},
    "streaming": {"BLOCKS": (2, 1), "BATCHES": (1, 4), "FUNASR_CHUNKS": 4, "COMPARED": 4},
    "gpu": {"BATCHES": (1, 2), "PRODUCTS": 2},
    "files": {"UTTERANCES": 64, "DIFFERENT": 16, "ROUNDS": 1},
    "chunks": {"CHUNKS": 100, "CROWD": 10, "WARM_UP_S": 0.5, "MEASURED_S": 1.5, "ROUNDS": 1},
    "cpu_budget": {"SESSIONS": 4, "WARM_UP_S": 1.0, "MEASURED_S": 2.0},
    "gateway": {"ROUND_TRIPS": 5, "IDLE_SESSIONS": 15},
    "vad": {"ROUNDS": 1},
    "long_file": {"FILE_S": 60, "SERVICE_MS": 20, "ALONE_S": 1.0, "SPEAKERS": 2},
    "partials": {"MODEL": "fake:20ms+10ms/s*8", "SESSIONS": 2, "DURATION_S": 6.0, "RAMP_S": 0.5},
    "real_size": {
        "BLOCKS": (2, 1),
        "SPEECH_S": 4.0,
        "RAMP_S": 0.5,
        "WORKERS": 1,
        "CLIENTS": {"offline": 2, "2pass": 2},
        "BATCHES": 1,
    },
    "takeover": {"SESSIONS": 2, "SEGMENTS": 40},
    "history": {"SESSIONS": 1_000, "PAGES": 10, "SEARCHES": 10, "SCANS": 1},
    "reconnect": {"CONNECTIONS": 20, "CONNECTIONS_MAX": 15, "ROUNDS": 1, "FORGOTTEN_S": 1.0},
}
"""Constants of the parts with which they only show that they work, in little time."""


def _modules() -> dict[str, ModuleType]:
    # Imported late: the import of torch takes seconds.
    return {part: importlib.import_module(f"tools.lab.bench.{part}") for part in PARTS}


def _row(figure: Figure) -> list[str]:
    colour = {None: "", True: "[green]", False: "[red]"}[figure.kept]
    return [figure.what, figure.shown, f"{colour}{figure.verdict}", figure.reference]


def _measured(
    console: Console, modules: dict[str, ModuleType], parts: list[str]
) -> results.Results:
    measured = results.begin()
    title = f"{measured.machine}; load average {measured.load_average}"
    table = Table("figure", "value", "promise", "reference", title=title, show_lines=True)
    for part in parts:
        with console.status(f"Measuring: {part} …"):
            measured.figures[part] = modules[part].measure()
        for figure in measured.figures[part]:
            table.add_row(*_row(figure))
    console.print(table)
    return measured


def main(
    parts: Annotated[
        list[str] | None, typer.Argument(metavar="PART", help=", ".join(PARTS))
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Only show that the parts work; promises are not judged."),
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="Another checkout that the part chunks measures in turn."),
    ] = None,
    save: Annotated[Path, typer.Option("--save", help="File for the results.")] = RESULTS,
    docs: Annotated[
        Path | None,
        typer.Option("--docs", help="Measure nothing; write these results to docs/performance.md."),
    ] = None,
) -> None:
    """Measure, and print each figure with its reference from the same run."""
    logging.configure("error", "console", "bench")
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH_CHARS)
    if docs is not None:
        console.print("written:", *report.write(results.read(docs)))
        return
    for name in parts or []:
        if name not in PARTS:
            raise typer.BadParameter(f"{name}: not one of {', '.join(PARTS)}")
    modules = _modules()
    if quick:
        for name, constants in QUICK.items():
            for constant, value in constants.items():
                assert hasattr(modules[name], constant), f"{name}.{constant}"
                setattr(modules[name], constant, value)
    if against is not None:
        modules["chunks"].AGAINST = against.resolve()  # type: ignore[attr-defined]
    measured = _measured(console, modules, parts or list(PARTS))
    results.write(measured, save)
    console.print(f"written: {save}")
    if not quick and (broken := measured.broken_promises):
        for figure in broken:
            console.print(f"[red]not kept:[/] {figure.what}: {figure.shown}, {figure.promise}")
        raise typer.Exit(1)


if __name__ == "__main__":
    lifecycle.be_interruptible()
    # The bare loops are the workers' reference, so each recogniser has one thread, as in a worker.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
