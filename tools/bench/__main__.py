"""``python -m tools.bench [PART]…``: codec, broker, worker, gateway, cpu_budget; all by default.

Absolute figures depend on the machine and on what else it does: compare with the reference beside
each. Exit code 1: a promise is not kept on this machine now.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from runtime import logging
from tools.bench.figures import Figure

PIPED_WIDTH_CHARS = 150


def _parts() -> dict[str, Callable[[], list[Figure]]]:
    # Imported late: the worker's part takes seconds to import torch.
    from tools.bench import broker, codec, cpu_budget, gateway, worker

    return {
        "codec": codec.measure,
        "broker": broker.measure,
        "worker": worker.measure,
        "gateway": gateway.measure,
        "cpu_budget": cpu_budget.measure,
    }


def _row(figure: Figure) -> list[str]:
    promise = ""
    if figure.at_least is not None:
        promise = f"≥ {figure.at_least:,.0f}"
    elif figure.at_most is not None:
        promise = f"≤ {figure.at_most:,.0f}"
    verdict = {None: "", True: "[green]kept[/]", False: "[red]not kept[/]"}[figure.kept]
    digits = 0 if figure.value >= 100 else 1
    value = f"{figure.value:,.{digits}f} {figure.unit}"
    return [figure.what, value, f"{promise} {verdict}".strip(), figure.reference]


def main(
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PART", help="codec, broker, worker, gateway, cpu_budget"),
    ] = None,
) -> None:
    """Measure, and print each figure beside its reference of the same run."""
    logging.configure("error", "console", "bench")
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH_CHARS)
    known = _parts()
    for name in parts or []:
        if name not in known:
            raise typer.BadParameter(f"{name}: not one of {', '.join(known)}")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    table = Table(
        "figure", "value", "promise", "reference", title=f"{os.cpu_count()} CPUs, load {load}"
    )
    kept = True
    for name in parts or known:
        with console.status(f"Measuring: {name} …"):
            figures = known[name]()
        for figure in figures:
            table.add_row(*_row(figure))
            kept = kept and figure.kept is not False
    console.print(table)
    raise typer.Exit(0 if kept else 1)


if __name__ == "__main__":
    typer.run(main)
