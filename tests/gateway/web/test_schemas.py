"""REST bodies against the messages from which they are made."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.web import schemas
from tests.gateway.session.test_session_jobs import job, result
from wire.messages import Failure, Result, Segment, Token


def shown(of: Result) -> dict[str, object]:
    """The body as FastAPI sends it."""
    return dict(schemas.SegmentAnswer.model_validate(schemas.segment_answer(of)).model_dump())


def test_a_segment_shows_every_field_that_is_not_internal() -> None:
    fields = set(Segment.__struct_fields__)
    assert fields >= schemas.INTERNAL
    body = shown(result(job(3), "drei"))
    assert body.keys() == fields - schemas.INTERNAL | {"segment_index", "text", "error", "speaker"}
    assert (body["segment_index"], body["text"], body["error"]) == (3, "drei", None)


def test_tokens_are_objects() -> None:
    answered = replace(
        result(job(0), "a"), tokens=(Token(text="a", start_ms=1, end_ms=2),), queue_ms=5
    )
    body = shown(answered)
    assert body["tokens"] == [{"text": "a", "start_ms": 1, "end_ms": 2}]
    assert body["queue_ms"] == 5


def test_a_failed_segment_shows_its_error() -> None:
    failure = Failure(code="chunk_failed", message="three times")
    body = shown(result(job(0), None, failure))
    assert body["error"] == {"code": "chunk_failed", "message": "three times"}
    assert body["text"] is None
