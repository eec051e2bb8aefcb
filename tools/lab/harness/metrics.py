"""Metrics of all processes of a host, scraped at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from runtime.metrics import PORT_OFFSETS
from tools.lab.harness.http import ask

PORTS_TRIED: Final = 4
"""For each kind: a restarted process may take the next port before the last one's is free."""

Series = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and sorted labels."""


@dataclass(frozen=True, slots=True)
class Metrics:
    processes: Mapping[int, Series]
    """By port offset; a process that did not answer is missing."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of a series over all processes and over the labels not given."""
        wanted = set(labels.items())
        return sum(
            value
            for series in self.processes.values()
            for (sample, its_labels), value in series.items()
            if sample == name and wanted <= set(its_labels)
        )

    def each(self, name: str) -> dict[int, float]:
        """The value of a series without labels, by port offset."""
        return {
            offset: series[name, ()]
            for offset, series in self.processes.items()
            if (name, ()) in series
        }


def scrape(
    first_port: int, kinds: Iterable[str] = tuple(PORT_OFFSETS), host: str = "127.0.0.1"
) -> Metrics:
    """Scrape the processes of ``kinds`` whose ``METRICS_PORT`` is ``first_port``."""
    found: dict[int, Series] = {}
    for kind in kinds:
        for offset in range(PORT_OFFSETS[kind], PORT_OFFSETS[kind] + PORTS_TRIED):
            answer = ask(f"http://{host}:{first_port + offset}/metrics")
            if answer.status == 200:
                found[offset] = {
                    (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                    for family in text_string_to_metric_families(answer.body)
                    for sample in family.samples
                }
    return Metrics(found)


def kind_at(offset: int) -> str:
    """Kind of the process that serves its metrics at this port offset."""
    return max((start, kind) for kind, start in PORT_OFFSETS.items() if start <= offset)[1]
