import pytest

from gateway.session.records import CHUNK_DETAILS_PER_RECORD, EarlyEnd, SessionRecords
from tests.gateway.session.test_session_jobs import job
from tests.gateway.session_driver import result_of
from wire import codec
from wire.messages import Failure, Record, StoredKey
from wire.records import (
    TRANSCRIPT_BYTES_MAX,
    ChunkDetail,
    ChunkDetails,
    SessionFinished,
    parse_body,
)


def chunk(index: int) -> ChunkDetail:
    return ChunkDetail(
        chunk_index=index, byte_count=2, offset_ms=index, duration_ms=1, received_at_ms=5
    )


def finish(
    log: SessionRecords, *results: object, early_end: EarlyEnd | None = None, text: str = "x"
) -> list[Record]:
    return log.finished(
        list(results),  # type: ignore[arg-type]
        early_end=early_end,
        text=text,
        duration_ms=1,
        chunk_count=1,
        completed_at_ms=9,
    )


def status(records: list[Record]) -> str:
    body = parse_body(records[-1].body)
    assert isinstance(body, SessionFinished)
    return body.status


def sizes(log: SessionRecords, chunks: int) -> list[int]:
    """Chunks in each record while chunks arrive at this rate. Each chunk is in one record."""
    bodies = [parse_body(r.body) for index in range(chunks) for r in log.chunk(chunk(index))]
    details = [body for body in bodies if isinstance(body, ChunkDetails)]
    assert len(details) == len(bodies)
    indices = [one.chunk_index for body in details for one in body.chunks]
    assert indices == list(range(len(indices)))
    return [len(body.chunks) for body in details]


def test_chunk_details_are_sent_in_batches_and_once() -> None:
    log = SessionRecords("s")
    first, *others = sizes(log, 3 * CHUNK_DETAILS_PER_RECORD)
    assert 1 <= first <= CHUNK_DETAILS_PER_RECORD
    assert others == [CHUNK_DETAILS_PER_RECORD] * 2
    left = 3 * CHUNK_DETAILS_PER_RECORD - first - sum(others)
    assert len(finish(log)) == (2 if left else 1)


def test_sessions_that_began_together_send_at_different_times() -> None:
    firsts = {sizes(SessionRecords(f"s{n}"), CHUNK_DETAILS_PER_RECORD)[0] for n in range(200)}
    assert len(firsts) > CHUNK_DETAILS_PER_RECORD // 2


def test_complete_once_every_record_and_result_is_stored() -> None:
    log = SessionRecords("s")
    log.expect_result(0)
    (ending,) = finish(log)
    assert not log.complete
    log.confirm([StoredKey(session_id="s", kind="record", seq=ending.record_seq)])
    assert not log.complete
    log.confirm([StoredKey(session_id="s", kind="result", seq=0)])
    assert log.complete


def test_the_status_of_an_ended_session() -> None:
    good = result_of(job(0), "eins")
    bad = result_of(job(1), None, Failure(code="chunk_failed", message="m"))
    assert status(finish(SessionRecords("s"))) == "completed"
    assert status(finish(SessionRecords("s"), good, bad)) == "completed"
    assert status(finish(SessionRecords("s"), bad)) == "failed"
    assert status(finish(SessionRecords("s"), good, early_end="abandoned")) == "abandoned"


@pytest.mark.parametrize("character", ["x", "字", "\U00020000"])
def test_a_transcript_of_any_length_can_be_stored(character: str) -> None:
    count = TRANSCRIPT_BYTES_MAX // len(character.encode())
    for text, is_stored in ((character * count, True), (character * (count + 1), False)):
        (record,) = finish(SessionRecords("s"), text=text)
        received = codec.decode(codec.encode(record))
        assert isinstance(received, Record)
        body = parse_body(received.body)
        assert isinstance(body, SessionFinished)
        assert body.text == (text if is_stored else None)
