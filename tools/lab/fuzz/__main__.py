"""``python -m tools.lab.fuzz``: send malformed messages to a system under verified load.

Exit codes: 0 no other session was affected and every message was counted; 1 there is a problem;
2 wrong usage.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.lab.fuzz.run import Result, Target, run
from tools.lab.harness.ports import free_port, free_range
from tools.lab.harness.stack import supervised_stack

EDGE_SHARE = 50
"""One message in 50 goes to a gateway: it costs a hundred times as much as one on the bus."""
PROBLEMS_SHOWN_MAX = 20

console = Console(stderr=True, highlight=False)

Messages = Annotated[
    int, typer.Option(min=1, help="Total number of messages, on the bus and at the edge.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed sends the same messages.")]
First = Annotated[int, typer.Option(min=0, help="Number of the first message, to repeat one.")]
Edge = Annotated[
    int | None, typer.Option(min=0, help="Messages at the edge; by default one in 50.")
]
Url = Annotated[
    str | None, typer.Option(help="Address of a running gateway; by default a system is started.")
]
Front = Annotated[str, typer.Option(help="Its BROKER_FRONTEND, with --url.")]
Back = Annotated[str, typer.Option(help="Its BROKER_BACKEND, with --url.")]
MetricsPort = Annotated[int, typer.Option(help="Its METRICS_PORT, with --url.")]
WarmUp = Annotated[float, typer.Option(min=0, help="Seconds of sessions before the first message.")]
Out = Annotated[Path | None, typer.Option(help="Directory for the report, fuzz.json.")]


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
    """Send malformed messages to a system, and check that it counts and survives them."""
    at_edge = min(messages, messages // EDGE_SHARE if edge is None else edge)
    at_bus = messages - at_edge
    if url is not None:
        if not metrics_port:
            raise typer.BadParameter("--url needs --metrics-port: the counters are checked")
        result = _fuzz(
            Target(url, front, back, metrics_port), seed, at_bus, at_edge, first, warm_up
        )
    else:
        settings = {
            "METRICS_PORT": str(free_range(100)),
            "MAX_CONNECTIONS": "1000",
            **{
                f"BROKER_{name}": f"tcp://127.0.0.1:{free_port()}"
                for name in ("FRONTEND", "BACKEND", "EVENTS")
            },
        }
        with supervised_stack(settings, workers=2, gateway=2) as stack:
            result = _fuzz(Target.of(stack), seed, at_bus, at_edge, first, warm_up)
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

        def show(*sent: int) -> None:
            for bar, count in zip(bars, sent, strict=True):
                progress.update(bar, completed=count)

        return run(
            target,
            seed=seed,
            bus=bus,
            edge=edge,
            first=first,
            warm_up_s=warm_up_s,
            show=show,
        )


def _report(result: Result, out: Path | None) -> None:
    console.print(
        f"{result.bus} messages on the bus, {result.edge} at the edge in {result.seconds:.0f} s, "
        f"seed {result.seed}; {result.sessions} concurrent verified sessions"
    )
    console.print(f"discarded by the broker, each counted: {result.counted}", markup=False)
    console.print(f"WebSocket closes: {result.closes}; HTTP: {result.statuses}", markup=False)
    for name, tenths in result.memory_mb.items():
        console.print(f"memory of {name}, MB: {' '.join(f'{mb:.0f}' for mb in tenths)}")
    for problem in result.problems[:PROBLEMS_SHOWN_MAX]:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    console.print(f"{len(result.problems)} problems")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(result), ensure_ascii=False, indent=1)
        (out / "fuzz.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
