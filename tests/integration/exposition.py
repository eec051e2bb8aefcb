"""The metrics of a process, parsed and checked as promtool does."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tools.lab.harness.http import ask

_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}


@dataclass(frozen=True)
class Exposition:
    """The metrics of one process."""

    text: str
    families: dict[str, Metric]
    """By the name in the text: a counter's ends with ``_total``."""

    def samples(self, name: str) -> list[Sample]:
        """Of a series by its full name, such as ``x_bucket``."""
        return [s for family in self.families.values() for s in family.samples if s.name == name]


def scrape(port: int) -> Exposition:
    answer = ask(f"http://127.0.0.1:{port}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return parse(answer.body)


def parse(text: str) -> Exposition:
    families = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name not in families, f"{name} twice"
        families[name] = family
    return Exposition(text, families)


def problems(shown: Exposition) -> list[str]:
    """Errors of the format and of each family."""
    found = []
    helps = re.findall(r"^# HELP (\S+) (.*)$", shown.text, re.MULTILINE)
    types = re.findall(r"^# TYPE (\S+) (\S+)$", shown.text, re.MULTILINE)
    if [name for name, _ in helps] != [name for name, _ in types]:
        found.append("HELP and TYPE do not come in pairs")
    if set(dict(types)) != set(shown.families):
        found.append("series without a TYPE")
    found += [f"{name}: no help" for name, text in helps if not text.strip()]
    for name, family in shown.families.items():
        found += [f"{name}: {problem}" for problem in _of_family(name, family)]
    return found


def _of_family(name: str, family: Metric) -> list[str]:
    found = []
    keys = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
    if len(keys) != len(set(keys)):
        found.append("a series twice")
    if family.type not in ("counter", "gauge", "histogram", "summary"):
        found.append(f"is of type {family.type}")
    if (family.type == "counter") != name.endswith("_total"):
        found.append("_total is for counters, and for every one")
    allowed = {f"{name}{suffix}" for suffix in _SUFFIXES.get(family.type, ("",))}
    if {sample.name for sample in family.samples} - allowed:
        found.append("series that are not of its type")
    if family.type == "histogram":
        found += _of_histogram(name, family.samples)
    return found


def _of_histogram(name: str, samples: list[Sample]) -> list[str]:
    buckets: defaultdict[tuple[tuple[str, str], ...], list[Sample]] = defaultdict(list)
    counts = {}
    for sample in samples:
        key = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        if sample.name == f"{name}_bucket":
            buckets[key].append(sample)
        elif sample.name == f"{name}_count":
            counts[key] = sample.value
    found = []
    if buckets.keys() != counts.keys():
        found.append("buckets without a count")
    for key, group in buckets.items():
        if group[-1].labels["le"] != "+Inf" or group[-1].value != counts.get(key):
            found.append("the last bucket is not all")
        if any(a.value > b.value for a, b in pairwise(group)):
            found.append("buckets do not grow")
    return found
