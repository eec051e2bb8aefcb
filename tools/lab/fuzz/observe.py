"""What the system tells of itself in /metrics: counters, lives of processes, memory."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from runtime.metrics import PORT_OFFSETS

SCRAPE_TIMEOUT_S: Final = 10.0
PORTS_TRIED: Final = 4
"""Of each kind of process."""

Series = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True)
class Look:
    """All processes' series by port offset; a process that did not answer is not there."""

    processes: Mapping[int, Series]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a series over all processes."""
        wanted = set(labels.items())
        return sum(
            value
            for series in self.processes.values()
            for (sample, its_labels), value in series.items()
            if sample == name and wanted <= set(its_labels)
        )

    def lives(self) -> dict[int, float]:
        """When each process began."""
        return self._each("process_start_time_seconds")

    def memory_mb(self) -> dict[int, float]:
        resident = self._each("process_resident_memory_bytes")
        return {place: value / 1e6 for place, value in resident.items()}

    def _each(self, name: str) -> dict[int, float]:
        return {
            place: series[name, ()]
            for place, series in self.processes.items()
            if (name, ()) in series
        }


def look(first_port: int) -> Look:
    """Ask every process below ``METRICS_PORT`` that there is."""
    found: dict[int, Series] = {}
    for offset in PORT_OFFSETS.values():
        for place in range(offset, offset + PORTS_TRIED):
            url = f"http://127.0.0.1:{first_port + place}/metrics"
            try:
                with urllib.request.urlopen(url, timeout=SCRAPE_TIMEOUT_S) as answer:
                    text = answer.read().decode()
            except (OSError, http.client.HTTPException):
                continue
            found[place] = {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
    return Look(found)


def kind_of(place: int) -> str:
    """Which kind of process has the port at this offset."""
    return next(
        name
        for name, offset in sorted(PORT_OFFSETS.items(), key=lambda item: -item[1])
        if place >= offset
    )
