"""Every metric in the code: named by Prometheus's conventions, and in docs/metrics.md."""

from __future__ import annotations

import ast
import importlib

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from tests.test_docs import named, table
from tests.test_tidy import MODULES, ROOT, SOURCES

DOCUMENT = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
OWNERS = {
    "asr_broker": "broker",
    "asr_build": "runtime",
    "asr_gateway": "gateway",
    "asr_persistence": "persistence",
    "asr_trace": "runtime",
    "asr_worker": "asr_worker",
}
"""Prefixes of names, and whose they are."""
TYPES: dict[type[MetricWrapperBase], str] = {
    Counter: "counter",
    Gauge: "gauge",
    Histogram: "histogram",
}
BOUNDED_LABELS = {
    *(
        "broker",
        "call",
        "code",
        "direction",
        "event",
        "kind",
        "lane",
        "outcome",
        "reason",
        "socket",
    ),
    *("status", "process", "version", "python", "model", "device"),
}
"""Allowed labels. A label whose values grow with sessions, clients or restarts is not allowed."""


def metrics_of_the_code() -> dict[str, MetricWrapperBase]:
    """By the name that Prometheus knows."""
    found = {}
    for name in MODULES:
        if not name.startswith("tests.") and name.endswith(".metrics"):
            for value in vars(importlib.import_module(name)).values():
                if isinstance(value, MetricWrapperBase):
                    suffix = "_total" if isinstance(value, Counter) else ""
                    found[f"{value._name}{suffix}"] = value
    return found


METRICS = metrics_of_the_code()


def test_metrics_are_made_in_the_metrics_modules_only() -> None:
    makers = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.name != "metrics.py"
        and any(
            isinstance(node, ast.ImportFrom) and node.module == "prometheus_client"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    }
    assert makers == set()
    assert METRICS


def test_the_table_is_the_code() -> None:
    shown = {
        named(name): (kind, labels.replace("`", ""), meaning)
        for name, kind, labels, meaning in table(DOCUMENT, "metrics")
    }
    assert shown == {
        name: (TYPES[type(metric)], ", ".join(metric._labelnames), metric._documentation)
        for name, metric in METRICS.items()
    }


@pytest.mark.parametrize("name", METRICS)
def test_the_conventions(name: str) -> None:
    metric = METRICS[name]
    assert "_".join(name.split("_")[:2]) in OWNERS
    assert metric._documentation and not metric._documentation.endswith(".")
    assert set(metric._labelnames) <= BOUNDED_LABELS
    words = name.split("_")
    assert not {"ms", "milliseconds", "minutes", "kb", "mb", "mib", "x"} & set(words), "base units"
    assert (words[-1] == "total") == isinstance(metric, Counter)
    if isinstance(metric, Histogram):
        bounds = metric._upper_bounds
        assert words[-1] in ("seconds", "size")
        assert sorted(set(bounds)) == list(bounds) and bounds[-1] == float("inf")
