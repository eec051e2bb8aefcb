"""What is counted where nothing else shows it: answers, results and records that go no further."""

from __future__ import annotations

from msgspec.structs import replace
from prometheus_client import REGISTRY

from gateway.session import events as e
from gateway.session.delivery import MISSED_PROBLEMS_MAX, Delivery
from gateway.session.segments import Segments
from gateway.telemetry import metrics
from tests.gateway.session.test_segments import job, result
from tests.test_docs import DOCS, named, table
from wire.messages import Failure


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"asr_gateway_{name}", labels) or 0.0


def discarded() -> dict[str, float]:
    reasons = ("unknown_segment", "repeated", "overloaded", "stale_generation")
    return {reason: value("results_discarded_total", reason=reason) for reason in reasons}


def test_every_error_code_has_a_series_and_no_other_can_add_one() -> None:
    documented = {named(row[0]) for row in table(DOCS, "errors")}
    assert documented == metrics.PROBLEM_CODES
    before = value("problems_total", code="other")
    metrics.count_problem("said by a stranger on the bus")
    assert value("problems_total", code="other") == before + 1


def test_a_result_that_is_no_news_is_counted() -> None:
    before = discarded()
    segments = Segments(deadline_ms=60_000)
    first = segments.add(job(0), 0.0)
    segments.answer(result(first, None, Failure(code="overloaded", message="full")), 1.0)
    segments.answer(result(job(7)), 1.0)
    segments.answer(replace(result(first), generation=1), 1.5)
    segments.answer(result(first), 1.5)
    segments.answer(result(first), 2.0)
    assert segments.waited_s(0, 2.0) == 2.0
    list(segments.pop_deliverable())
    segments.answer(result(first), 3.0)
    counted = {reason: count - before[reason] for reason, count in discarded().items()}
    assert counted == {
        "unknown_segment": 1,
        "repeated": 2,
        "overloaded": 1,
        "stale_generation": 1,
    }


def test_errors_that_nobody_will_be_told_are_counted() -> None:
    before = value("answers_discarded_total", reason="client_away")
    delivery = Delivery("s")
    delivery.detach(0.0)
    for _ in range(MISSED_PROBLEMS_MAX + 3):
        delivery.tell(e.Problem(code="bad_audio", message=""))
    # Acknowledgements are not missed: the answer to the client's return says more.
    delivery.tell(e.ChunkReceived(chunk_index=1))
    assert value("answers_discarded_total", reason="client_away") == before + 3
