"""``python -m tools.lab.fuzz``: messages that no correct peer sends, and whether anyone else
notices.

Exit codes: 0 nobody did; 1 something must not have happened; 2 wrong usage.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.lab.chaos.system import System
from tools.lab.fuzz.run import Result, Target, run

EDGE_SHARE = 50
"""One message in so many goes to a gateway: each costs a hundred times what one of the bus does."""
PROBLEMS_SHOWN_MAX = 20

console = Console(stderr=True, highlight=False)

Messages = Annotated[int, typer.Option(min=1, help="In all, on the bus and at the edge.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed sends the same messages.")]
First = Annotated[int, typer.Option(min=0, help="Number of the first, to send one again.")]
Edge = Annotated[int | None, typer.Option(min=0, help="How many at the edge; 1 in 50, if not set.")]
Url = Annotated[str | None, typer.Option(help="A running gateway; nothing: start a system.")]
Front = Annotated[str, typer.Option(help="Its BROKER_FRONTEND, with --url.")]
Back = Annotated[str, typer.Option(help="Its BROKER_BACKEND, with --url.")]
MetricsPort = Annotated[int, typer.Option(help="Its METRICS_PORT, with --url.")]
WarmUp = Annotated[float, typer.Option(min=0, help="Seconds of sessions alone, at first.")]
Out = Annotated[Path | None, typer.Option(help="Directory of the report, fuzz.json.")]


def main(
    messages: Messages = 10_000,
    seed: Seed = 1,
    first: First = 0,
    edge: Edge = None,
    url: Url = None,
    front: Front = "tcp://127.0.0.1:7101",
    back: Back = "tcp://127.0.0.1:7102",
    metrics_port: MetricsPort = 0,
    warm_up: WarmUp = 30.0,
    out: Out = None,
) -> None:
    """Send a system what it must not understand."""
    at_edge = min(messages, messages // EDGE_SHARE if edge is None else edge)
    at_bus = messages - at_edge
    if url is not None:
        if not metrics_port:
            raise typer.BadParameter("--url needs --metrics-port: counters tell what happened")
        result = _fuzz(
            Target(url, front, back, metrics_port), seed, at_bus, at_edge, first, warm_up
        )
    else:
        directory = Path(tempfile.mkdtemp(prefix="asr-fuzz-"))
        try:
            with System(directory) as system:
                target = Target(
                    system.http_url, *system.broker_endpoints, metrics_port=system.metrics_port
                )
                result = _fuzz(target, seed, at_bus, at_edge, first, warm_up)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    _report(result, out)
    raise typer.Exit(1 if result.problems else 0)


def _fuzz(target: Target, seed: int, bus: int, edge: int, first: int, warm_up_s: float) -> Result:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = progress.add_task("bus", total=bus), progress.add_task("edge", total=edge)

        def tell(*sent: int) -> None:
            for bar, count in zip(bars, sent, strict=True):
                progress.update(bar, completed=count)

        return run(
            target,
            seed=seed,
            bus=bus,
            edge=edge,
            first=first,
            warm_up_s=warm_up_s,
            tell=tell,
        )


def _report(result: Result, out: Path | None) -> None:
    console.print(
        f"{result.bus} messages on the bus, {result.edge} at the edge in {result.seconds:.0f} s, "
        f"seed {result.seed}; {result.sessions} verified sessions beside them"
    )
    console.print(f"discarded by the broker, each counted: {result.counted}", markup=False)
    console.print(f"WebSocket closes: {result.closes}; HTTP: {result.statuses}", markup=False)
    for name, tenths in result.memory_mb.items():
        console.print(f"memory of {name}, MB: {' '.join(f'{mb:.0f}' for mb in tenths)}")
    for problem in result.problems[:PROBLEMS_SHOWN_MAX]:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    console.print("nobody noticed" if not result.problems else f"{len(result.problems)} problems")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(result), ensure_ascii=False, indent=1)
        (out / "fuzz.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
