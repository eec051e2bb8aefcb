"""Figures of one run as JSON, with the machine that measured them."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.lab.bench.figures import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    measured_at: str
    machine: str
    load_average: float
    """Load average of one minute before the run: other load on the machine."""
    figures: dict[str, list[Figure]]
    """Figures by part of the benchmark."""

    @property
    def broken_promises(self) -> list[Figure]:
        return [each for part in self.figures.values() for each in part if each.kept is False]


def machine() -> str:
    """Processor, number of cores, Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{os.cpu_count()} × {model}, Python {platform.python_version()}"


def begin() -> Results:
    """Empty results of a run that begins now."""
    return Results(
        measured_at=datetime.now(UTC).isoformat(timespec="minutes"),
        machine=machine(),
        load_average=round(os.getloadavg()[0], 2),
        figures={},
    )


def write(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(results), indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> Results:
    values: dict[str, Any] = json.loads(path.read_text())
    figures = {
        part: [
            Figure(
                **{
                    **figure,
                    "points": tuple((x, y) for x, y in figure["points"]),
                    "labels": tuple(figure["labels"]),
                }
            )
            for figure in part_figures
        ]
        for part, part_figures in values.pop("figures").items()
    }
    return Results(**values, figures=figures)
