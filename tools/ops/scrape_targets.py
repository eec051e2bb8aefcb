"""``python -m tools.ops.scrape_targets gateway=2 asr_worker=4``: print the metrics endpoints of
this host as Prometheus targets, for the file that deploy/prometheus/prometheus.yml reads."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from runtime import settings
from runtime.metrics import INSTANCES_MAX, PORT_OFFSETS

FIRST_PORT = 9_700
"""Used if METRICS_PORT is not set; the documentation uses it, too."""

Counts = Annotated[
    list[str] | None,
    typer.Argument(help="Processes of each kind, as KIND=NUMBER; 1 if not given."),
]


def scrape_targets(first_port: int, counts: dict[str, int]) -> list[dict[str, Any]]:
    """Return Prometheus target groups, one for each kind of process.

    Raises:
        ValueError: If a kind does not exist, or has fewer ports than processes.
    """
    for kind, count in counts.items():
        if kind not in PORT_OFFSETS:
            raise ValueError(f"unknown kind {kind!r}: choose from {', '.join(PORT_OFFSETS)}")
        if not 0 <= count <= INSTANCES_MAX[kind]:
            raise ValueError(f"{kind}={count}: 0 to {INSTANCES_MAX[kind]} processes have a port")
    return [
        {
            "labels": {"job": job_of(kind)},
            "targets": [f"127.0.0.1:{first_port + offset + n}" for n in range(counts.get(kind, 1))],
        }
        for kind, offset in PORT_OFFSETS.items()
    ]


def job_of(kind: str) -> str:
    """Return the ``job`` label of a kind of process."""
    return "asr-worker" if kind == "asr_worker" else f"asr-{kind}"


def _count(argument: str) -> tuple[str, int]:
    kind, _, number = argument.partition("=")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"{argument!r} is not KIND=NUMBER")
    return kind, int(number)


def main(counts: Counts = None) -> None:
    """Print the Prometheus targets of this host.

    Count one asr_worker for each of ASR_WORKERS. The first port is METRICS_PORT, or 9700.
    """
    try:
        first_port = settings.load(settings.ProcessSettings).metrics_port or FIRST_PORT
        found = scrape_targets(first_port, dict(map(_count, counts or [])))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
