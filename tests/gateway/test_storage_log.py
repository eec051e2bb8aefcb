from gateway.storage_log import CHUNK_DETAILS_PER_RECORD, Gone, StorageLog
from tests.gateway.session_driver import result_of
from tests.gateway.test_segments import job
from wire.messages import Failure, Record, StoredKey
from wire.records import ChunkDetail, ChunkDetails, SessionFinished, parse_body


def chunk(index: int) -> ChunkDetail:
    return ChunkDetail(
        chunk_index=index, byte_count=2, offset_ms=index, duration_ms=1, received_at_ms=5
    )


def finish(log: StorageLog, *results: object, gone: Gone | None = None) -> list[Record]:
    return log.finished(
        list(results),  # type: ignore[arg-type]
        gone=gone,
        text="x",
        duration_ms=1,
        chunk_count=1,
        completed_at_ms=9,
    )


def status(records: list[Record]) -> str:
    body = parse_body(records[-1].body)
    assert isinstance(body, SessionFinished)
    return body.status


def test_chunk_details_go_out_many_at_a_time_and_once() -> None:
    log = StorageLog("s")
    for index in range(CHUNK_DETAILS_PER_RECORD - 1):
        assert log.chunk(chunk(index)) == []
    (record,) = log.chunk(chunk(CHUNK_DETAILS_PER_RECORD - 1))
    body = parse_body(record.body)
    assert isinstance(body, ChunkDetails) and len(body.chunks) == CHUNK_DETAILS_PER_RECORD
    assert len(finish(log)) == 1


def test_complete_once_every_record_and_result_is_stored() -> None:
    log = StorageLog("s")
    log.expect_result(0)
    (ending,) = finish(log)
    assert not log.complete
    log.confirm([StoredKey(session_id="s", kind="record", seq=ending.record_seq)])
    assert not log.complete
    log.confirm([StoredKey(session_id="s", kind="result", seq=0)])
    assert log.complete


def test_how_a_session_ended() -> None:
    good = result_of(job(0), "eins")
    bad = result_of(job(1), None, Failure(code="chunk_failed", message="m"))
    assert status(finish(StorageLog("s"))) == "completed"
    assert status(finish(StorageLog("s"), good, bad)) == "completed"
    assert status(finish(StorageLog("s"), bad)) == "failed"
    assert status(finish(StorageLog("s"), good, gone="abandoned")) == "abandoned"
