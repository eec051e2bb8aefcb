"""Counters of answers, results and records that are discarded without another sign."""

from __future__ import annotations

from prometheus_client import REGISTRY

from gateway.telemetry import metrics
from tests.test_docs import DOCS, named, table


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"asr_gateway_{name}", labels) or 0.0


def test_every_error_code_has_a_series_and_no_other_can_add_one() -> None:
    documented = {named(row[0]) for row in table(DOCS, "errors")}
    assert documented == metrics.PROBLEM_CODES
    before = value("problems_total", code="other")
    metrics.count_problem("said by a stranger on the bus")
    assert value("problems_total", code="other") == before + 1
