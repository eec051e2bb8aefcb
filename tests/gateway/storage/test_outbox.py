from gateway.storage import outbox as o
from tests.gateway.session.test_session_jobs import job, result
from wire.messages import Record, StoredKey
from wire.records import SegmentCopy, parse_body


def record(seq: int, session_id: str = "a") -> Record:
    return Record(session_id=session_id, record_seq=seq, body={"type": "started"})


def key(kind: str, seq: int, session_id: str = "a") -> StoredKey:
    return StoredKey(session_id=session_id, kind=kind, seq=seq)  # type: ignore[arg-type]


def test_a_record_is_resent_with_backoff_until_it_is_confirmed() -> None:
    box = o.Outbox(limit=10)
    box.put_record(record(0), 0.0)
    assert box.due(o.RESEND_INITIAL_S - 0.01) == []
    assert box.due(o.RESEND_INITIAL_S) == [record(0)]
    assert box.due(o.RESEND_INITIAL_S) == []
    assert box.due(o.RESEND_INITIAL_S * 3) == [record(0)]
    assert box.confirm([key("record", 0)], 1.0) == [o.Confirmed(key("record", 0), 1.0)]
    assert box.due(1e9) == []
    assert len(box) == 0


def test_an_unconfirmed_result_is_sent_as_a_record() -> None:
    box = o.Outbox(limit=10)
    answered = result(job(3), "drei")
    box.put_result(answered, 0.0)
    (copy,) = box.due(o.RESEND_INITIAL_S)
    assert copy.record_seq == o.SEGMENT_COPY_SEQ_OFFSET + 3
    body = parse_body(copy.body)
    assert isinstance(body, SegmentCopy)
    assert (body.seq, body.segment_text, body.worker_id) == (3, "drei", "w")


def test_a_result_is_confirmed_by_its_own_key_or_its_copys() -> None:
    for confirmation in (key("result", 3), key("record", o.SEGMENT_COPY_SEQ_OFFSET + 3)):
        box = o.Outbox(limit=10)
        box.put_result(result(job(3)), 0.0)
        assert box.confirm([confirmation], 1.0) == [o.Confirmed(key("result", 3), 1.0)]
        assert len(box) == 0


def test_unknown_keys_confirm_nothing() -> None:
    box = o.Outbox(limit=10)
    box.put_record(record(0), 0.0)
    unknown = [key("record", 9), key("result", 0), key("record", 0, "b")]
    assert box.confirm(unknown, 1.0) == [o.Confirmed(each, None) for each in unknown]
    assert len(box) == 1


def test_a_full_outbox_still_takes_records() -> None:
    box = o.Outbox(limit=2)
    box.put_record(record(0), 0.0)
    assert not box.full
    box.put_record(record(1), 0.0)
    assert box.full
    box.put_record(record(2), 0.0)
    assert len(box) == 3


def test_a_backlog_is_resent_over_several_ticks() -> None:
    box = o.Outbox(limit=10_000)
    for seq in range(o.RESENDS_PER_TICK_MAX + 5):
        box.put_record(record(seq), 0.0)
    assert len(box.due(10.0)) == o.RESENDS_PER_TICK_MAX
    assert len(box.due(10.0)) == 5


def test_all_records_are_due_when_the_way_to_persistence_is_open_again() -> None:
    box = o.Outbox(limit=10_000)
    box.put_record(record(0), 0.0)
    for now_s in (3.0, 9.0, 21.0):
        assert box.due(now_s) == [record(0)]
    box.put_record(record(1), 21.0)
    assert box.due(22.0) == []
    box.resend_all(22.0)
    assert box.due(22.0) == [record(0), record(1)]
    assert box.due(22.0 + o.RESEND_INITIAL_S - 0.01) == []
    assert box.due(22.0 + o.RESEND_INITIAL_S) == [record(0), record(1)]
    for seq in range(2, o.RESENDS_PER_TICK_MAX + 5):
        box.put_record(record(seq), 30.0)
    box.resend_all(30.0)
    assert [len(box.due(30.0)) for _ in range(3)] == [o.RESENDS_PER_TICK_MAX, 5, 0]


def test_records_of_a_deleted_session_are_removed() -> None:
    box = o.Outbox(limit=10)
    box.put_record(record(0), 0.0)
    box.put_record(record(0, "b"), 0.0)
    box.forget_session("a")
    assert [r.session_id for r in box.due(10.0)] == ["b"]


def test_only_the_copy_confirms_a_contested_result() -> None:
    box = o.Outbox(limit=10)
    copy = box.put_result(result(job(3), "drei"), 0.0, contested=True)
    assert box.confirm([key("result", 3)], 1.0) == []
    assert len(box) == 1
    assert box.confirm([key("record", copy.record_seq)], 1.0) == [
        o.Confirmed(key("result", 3), 1.0)
    ]
    assert len(box) == 0


def test_a_key_of_another_generation_confirms_nothing() -> None:
    box = o.Outbox(limit=10)
    box.put_record(Record(session_id="a", record_seq=0, body={}, generation=1), 0.0)
    box.confirm([key("record", 0)], 1.0)
    assert len(box) == 1


def test_restored_records_are_due_at_once() -> None:
    box = o.Outbox(limit=10)
    left = record(o.SEGMENT_COPY_SEQ_OFFSET + 1)
    box.put_record(left, 0.0, wait_s=0.0)
    assert box.due(0.0) == box.records() == [left]
    box.confirm([key("record", o.SEGMENT_COPY_SEQ_OFFSET + 1)], 1.0)
    assert len(box) == 0


def test_the_age_is_that_of_the_oldest_record() -> None:
    box = o.Outbox(limit=10)
    assert box.age_s(5.0) == 0.0
    box.put_record(record(0), 1.0)
    box.put_record(record(1), 2.0, wait_s=0.0)
    assert box.age_s(5.0) == 4.0
    (confirmed,) = box.confirm([key("record", 0)], 4.0)
    assert confirmed.waited_s == 3.0
    assert box.age_s(5.0) == 3.0
