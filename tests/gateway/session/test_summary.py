from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.session import events as e
from gateway.session.summary import LATENCIES_MAX, WORKERS_MAX, SessionSummary
from tests.gateway.session.test_session_jobs import job, result
from tests.gateway.session_driver import SessionDriver, silence, speech
from wire.messages import Failure


def reported(driver: SessionDriver, summary: SessionSummary) -> dict[str, object]:
    return summary.fields(driver.session, driver.now_s)


def finished() -> tuple[SessionDriver, SessionSummary]:
    """A session that was recognised as "one 二", and its summary."""
    driver, summary = SessionDriver(), SessionSummary("native")
    driver.start()
    driver.chunk(speech(1_500) + silence(1_000))
    driver.recognise(driver.jobs[0], "one 二")
    return driver, summary


def test_the_summary_has_the_recognised_amount_latencies_and_workers() -> None:
    driver, summary = finished()
    summary.note_result(result(job(0), "one"), 0.2)
    summary.note_result(result(job(1), "二"), 0.4)
    fields = reported(driver, summary)
    assert (fields["dialect"], fields["lane"], fields["client"]) == ("native", "live", "127.0.0.1")
    assert (fields["segments"], fields["words"], fields["characters"]) == (1, 2, 5)
    assert (fields["latency_p50_ms"], fields["latency_p95_ms"]) == (200, 400)
    assert fields["workers"] == ["w"]
    assert not {"errors", "resumes", "token_name", "generation"} & fields.keys()


def test_the_status_is_that_of_the_stored_end() -> None:
    driver, summary = finished()
    for record in driver.records:
        summary.note_record(record)
    assert reported(driver, summary)["status"] == "already_complete"
    driver.finish()
    for record in driver.records:
        summary.note_record(record)
    assert reported(driver, summary)["status"] == "completed"


@pytest.mark.parametrize("cause", ["internal_error", "handed_over"])
def test_a_session_that_ends_without_an_end_reports_why(cause: str) -> None:
    driver, summary = finished()
    summary.cause = cause  # type: ignore[assignment]
    assert reported(driver, summary)["status"] == cause


def test_a_deleted_session_is_reported() -> None:
    driver, summary = finished()
    driver.feed(e.Deleted())
    assert reported(driver, summary)["status"] == "deleted"


def test_errors_are_counted_once_by_their_code() -> None:
    driver, summary = finished()
    failure = Failure(code="chunk_failed", message="three times")
    summary.note_result(result(job(0), None, failure), 0.1)
    summary.note_answer(e.Problem(code="chunk_failed", message="three times", segment_index=0))
    summary.note_answer(e.Problem(code="bad_audio", message="no audio"))
    assert reported(driver, summary)["errors"] == {"chunk_failed": 1, "bad_audio": 1}


def test_what_a_story_keeps_is_limited() -> None:
    driver, summary = finished()
    for number in range(LATENCIES_MAX + 10):
        named = replace(result(job(0)), worker_id=f"w{number}")
        summary.note_result(named, float(number < 10))
    fields = reported(driver, summary)
    assert fields["latency_p95_ms"] == 0
    assert fields["workers"] == [f"w{number}" for number in range(WORKERS_MAX)]
