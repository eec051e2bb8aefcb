"""``python -m tools.ops.scrape_targets gateway=2 asr_worker=4``: where this host's processes show
their metrics, as the file of targets that deploy/prometheus/prometheus.yml reads."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from runtime import settings
from runtime.metrics import INSTANCES_MAX, PORT_OFFSETS

FIRST_PORT = 9_700
"""As the documents have it, where METRICS_PORT is not set."""

Counts = Annotated[
    list[str] | None,
    typer.Argument(help="KIND=NUMBER of processes; 1 of each kind that is not named"),
]


def scrape_targets(first_port: int, counts: dict[str, int]) -> list[dict[str, Any]]:
    """Prometheus's target groups, one for each kind: instances take the ports one by one.

    Raises:
        ValueError: no such kind, or more of it than have a port.
    """
    for kind, count in counts.items():
        if kind not in PORT_OFFSETS:
            raise ValueError(f"{kind!r} is none of {', '.join(PORT_OFFSETS)}")
        if not 0 <= count <= INSTANCES_MAX[kind]:
            raise ValueError(f"{kind}: 0 to {INSTANCES_MAX[kind]} have a port")
    return [
        {
            "labels": {"job": job_of(kind)},
            "targets": [f"127.0.0.1:{first_port + offset + n}" for n in range(counts.get(kind, 1))],
        }
        for kind, offset in PORT_OFFSETS.items()
    ]


def job_of(kind: str) -> str:
    return "asr-worker" if kind == "asr_worker" else f"asr-{kind}"


def _count(argument: str) -> tuple[str, int]:
    kind, _, number = argument.partition("=")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"{argument!r} is not KIND=NUMBER")
    return kind, int(number)


def main(counts: Counts = None) -> None:
    """Print the targets of a host that runs so many processes (one for each of ASR_WORKERS) with
    METRICS_PORT, or with METRICS_PORT=9700."""
    try:
        first_port = settings.load(settings.ProcessSettings).metrics_port or FIRST_PORT
        found = scrape_targets(first_port, dict(map(_count, counts or [])))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
