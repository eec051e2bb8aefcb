from __future__ import annotations

from prometheus_client import REGISTRY

from gateway import metrics
from tests.test_docs import ARCHITECTURE, named, table


def test_every_error_code_has_a_series_and_no_other_can_add_one() -> None:
    documented = {named(row[0]) for row in table(ARCHITECTURE, "errors")}
    assert documented == metrics.PROBLEM_CODES
    before = REGISTRY.get_sample_value("asr_gateway_problems_total", {"code": "other"}) or 0.0
    metrics.count_problem("said by a stranger on the bus")
    after = REGISTRY.get_sample_value("asr_gateway_problems_total", {"code": "other"})
    assert after == before + 1
