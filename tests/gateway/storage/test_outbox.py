from gateway.storage import outbox as o
from tests.gateway.session.test_segments import job, result
from wire.messages import Record, StoredKey
from wire.records import SegmentCopy, parse_body


def record(seq: int, session_id: str = "a") -> Record:
    return Record(session_id=session_id, record_seq=seq, body={"type": "started"})


def key(kind: str, seq: int, session_id: str = "a") -> StoredKey:
    return StoredKey(session_id=session_id, kind=kind, seq=seq)  # type: ignore[arg-type]


def test_a_record_is_sent_again_until_it_is_stored() -> None:
    box = o.Outbox(limit=10)
    box.put_record(record(0), 0.0)
    assert box.due(o.RESEND_INITIAL_S - 0.01) == []
    assert box.due(o.RESEND_INITIAL_S) == [record(0)]
    assert box.due(o.RESEND_INITIAL_S) == []
    assert box.due(o.RESEND_INITIAL_S * 3) == [record(0)]
    assert box.confirm([key("record", 0)], 1.0) == [key("record", 0)]
    assert box.due(1e9) == []
    assert len(box) == 0


def test_a_result_nobody_confirmed_is_copied_into_a_record() -> None:
    box = o.Outbox(limit=10)
    answered = result(job(3), "drei")
    box.put_result(answered, 0.0)
    (copy,) = box.due(o.RESEND_INITIAL_S)
    assert copy.record_seq == o.SEGMENT_COPY_SEQ_OFFSET + 3
    body = parse_body(copy.body)
    assert isinstance(body, SegmentCopy)
    assert (body.seq, body.segment_text, body.worker_id) == (3, "drei", "w")


def test_either_confirmation_settles_a_result() -> None:
    for confirmation in (key("result", 3), key("record", o.SEGMENT_COPY_SEQ_OFFSET + 3)):
        box = o.Outbox(limit=10)
        box.put_result(result(job(3)), 0.0)
        assert box.confirm([confirmation], 1.0) == [key("result", 3)]
        assert len(box) == 0


def test_confirmations_of_strangers_are_harmless() -> None:
    box = o.Outbox(limit=10)
    box.put_record(record(0), 0.0)
    box.confirm([key("record", 9), key("result", 0), key("record", 0, "b")], 1.0)
    assert len(box) == 1


def test_full_at_the_limit_but_admitted_sessions_still_put() -> None:
    box = o.Outbox(limit=2)
    box.put_record(record(0), 0.0)
    assert not box.full
    box.put_record(record(1), 0.0)
    assert box.full
    box.put_record(record(2), 0.0)
    assert len(box) == 3


def test_a_backlog_is_resent_in_portions() -> None:
    box = o.Outbox(limit=10_000)
    for seq in range(o.RESENDS_PER_TICK_MAX + 5):
        box.put_record(record(seq), 0.0)
    assert len(box.due(10.0)) == o.RESENDS_PER_TICK_MAX
    assert len(box.due(10.0)) == 5


def test_a_deleted_session_leaves_nothing() -> None:
    box = o.Outbox(limit=10)
    box.put_record(record(0), 0.0)
    box.put_record(record(0, "b"), 0.0)
    assert box.forget_session("a") == 1
    assert [r.session_id for r in box.due(10.0)] == ["b"]


def test_a_contested_result_is_stored_only_by_its_copy() -> None:
    box = o.Outbox(limit=10)
    copy = box.put_result(result(job(3), "drei"), 0.0, contested=True)
    assert box.confirm([key("result", 3)], 1.0) == []
    assert len(box) == 1
    assert box.confirm([key("record", copy.record_seq)], 1.0) == [key("result", 3)]
    assert len(box) == 0


def test_generations_do_not_confirm_each_other() -> None:
    box = o.Outbox(limit=10)
    box.put_record(Record(session_id="a", record_seq=0, body={}, generation=1), 0.0)
    box.confirm([key("record", 0)], 1.0)
    assert len(box) == 1


def test_what_an_ended_gateway_left_is_due_at_once() -> None:
    box = o.Outbox(limit=10)
    left = record(o.SEGMENT_COPY_SEQ_OFFSET + 1)
    box.restore(left, 0.0)
    assert box.due(0.0) == box.records() == [left]
    box.confirm([key("record", o.SEGMENT_COPY_SEQ_OFFSET + 1)], 1.0)
    assert len(box) == 0
