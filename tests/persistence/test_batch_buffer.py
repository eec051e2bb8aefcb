from __future__ import annotations

import random

import pytest
from msgspec import structs

from persistence.batch_buffer import (
    STORED_KEYS_MAX,
    Batch,
    BatchBuffer,
    Limits,
    Reception,
    routes_of,
)
from tests.persistence import sent
from wire import codec
from wire.messages import PublishedRecord, Record, Stored, StoredKey
from wire.publication import decode, encode
from wire.records import SegmentCopy

LIMITS = Limits(
    batch_rows_max=3, batch_wait_s=0.5, pending_rows_max=10, pending_bytes_max=1_000_000
)
TAKEN = Reception()


def buffer(**changes: float) -> BatchBuffer:
    fields = {name: getattr(LIMITS, name) for name in Limits.__struct_fields__}
    return BatchBuffer(Limits(**{**fields, **changes}), "")


def take(core: BatchBuffer, now_s: float = 1_000.0) -> Batch:
    batch = core.take_batch(now_s)
    assert batch is not None
    return batch


def key(seq: int, kind: str = "result", session_id: str = "s") -> StoredKey:
    return StoredKey(session_id=session_id, kind=kind, seq=seq)  # type: ignore[arg-type]


def test_a_full_batch_is_due_at_once_and_a_partial_one_after_the_wait() -> None:
    core = buffer()
    assert core.batch_due_s() is None
    core.receive(sent.published_result(0, sent.result(seq=0)), 10.0)
    core.receive(sent.published_result(1, sent.result(seq=1)), 10.4)
    assert core.batch_due_s() == 10.5
    assert core.take_batch(10.49) is None
    core.receive(sent.published_result(2, sent.result(seq=2)), 10.45)
    assert [e.key.seq for e in take(core, 10.46)] == [0, 1, 2]


def test_draining_makes_every_batch_due() -> None:
    core = buffer()
    core.receive(sent.published_result(0, sent.result()), 10.0)
    assert core.take_batch(10.0) is None
    assert core.take_batch(10.0, draining=True) is not None
    assert core.take_batch(10.0, draining=True) is None


def test_each_gateway_gets_its_keys_after_the_commit() -> None:
    core = buffer()
    core.receive(sent.published_result(0, sent.result(), gateway_id="a"), 0.0)
    core.receive(sent.published_record(1, sent.started(), gateway_id="b", record_seq=4), 0.0)
    batch = take(core)
    assert core.rows == 2
    assert core.committed(batch) == [
        ("", Stored(gateway_id="a", keys=(key(0),))),
        ("", Stored(gateway_id="b", keys=(key(4, "record"),))),
    ]
    assert (core.rows, core.bytes) == (0, 0)


@pytest.mark.parametrize("other, taken", [("one", True), ("", True), ("two", False)])
def test_publications_of_another_system_are_neither_stored_nor_confirmed(
    other: str, taken: bool
) -> None:
    core = BatchBuffer(LIMITS, "one")
    _, message = decode(sent.published_result(0, sent.result()))
    reception = core.receive(encode(0, structs.replace(message, system_id=other)), 0.0)
    assert reception.discarded == (None if taken else "foreign_system")
    assert core.rows == taken
    if taken:
        assert [stored.system_id for _, stored in core.committed(take(core))] == ["one"]


def test_a_result_becomes_a_complete_row() -> None:
    core = buffer()
    core.receive(sent.published_result(0, sent.result(seq=7, text="seven")), 0.0)
    (entry,) = take(core)
    assert isinstance(entry.body, SegmentCopy)
    assert (entry.body.seq, entry.body.segment_text, entry.body.worker_id) == (
        7,
        "seven",
        "worker-1",
    )


def test_a_duplicate_is_dropped_until_its_batch_is_committed() -> None:
    core = buffer()
    frames = sent.published_result(0, sent.result())
    assert core.receive(frames, 0.0) == TAKEN
    assert core.receive(sent.published_result(1, sent.result()), 0.0).discarded == "repeated"
    batch = take(core)
    assert core.receive(sent.published_result(2, sent.result()), 0.0).discarded == "repeated"
    core.committed(batch)
    assert core.receive(sent.published_result(3, sent.result()), 0.0) == TAKEN


def test_the_same_key_of_two_gateways_is_two_records() -> None:
    """The new gateway of a resumed session numbers its records from 0."""
    core = buffer()
    assert core.receive(sent.published_record(0, sent.started(), gateway_id="a"), 0.0) == TAKEN
    other = sent.started(client="10.0.0.9")
    assert core.receive(sent.published_record(1, other, gateway_id="b"), 0.0) == TAKEN
    assert [m.gateway_id for _, m in core.committed(take(core))] == ["a", "b"]


def test_chunks_count_as_rows_and_a_large_record_is_a_batch_of_its_own() -> None:
    core = buffer()
    core.receive(sent.published_record(0, sent.chunks(0, 1), record_seq=1), 0.0)
    core.receive(sent.published_record(1, sent.chunks(*range(2, 7)), record_seq=2), 0.0)
    core.receive(sent.published_result(2, sent.result()), 0.0)
    assert core.rows == 8
    assert [[e.rows for e in take(core)] for _ in range(3)] == [[2], [5], [1]]


def test_publications_over_the_row_limit_are_dropped_until_a_commit() -> None:
    core = buffer()
    for seq in range(10):
        assert core.receive(sent.published_result(seq, sent.result(seq=seq)), 0.0) == TAKEN
    late = sent.published_result(10, sent.result(seq=10))
    assert core.receive(late, 0.0).discarded == "backlog_full"
    batch = take(core)
    assert core.receive(late, 0.0).discarded == "backlog_full", "a taken batch is still ours"
    core.committed(batch)
    assert core.receive(sent.published_result(11, sent.result(seq=10)), 0.0) == TAKEN


def test_a_record_over_the_limits_is_accepted_by_an_empty_buffer() -> None:
    """A dropped record is sent again forever and never stored."""
    core = buffer(pending_rows_max=3)
    giant = sent.published_record(0, sent.chunks(*range(5)), record_seq=1)
    assert core.receive(giant, 0.0) == TAKEN
    late = sent.published_result(1, sent.result())
    assert core.receive(late, 0.0).discarded == "backlog_full"
    core.committed(take(core))
    assert core.receive(late, 0.0) == TAKEN
    assert core.receive(giant, 0.0).discarded == "backlog_full"


def test_records_without_chunks_count_towards_the_limits() -> None:
    core = buffer(pending_rows_max=2)
    for number in range(3):
        frames = sent.published_record(number, sent.chunks(), record_seq=number)
        reception = core.receive(frames, 0.0)
    assert reception.discarded == "backlog_full"


def test_publications_over_the_byte_limit_are_dropped() -> None:
    core = buffer(pending_bytes_max=2_500)
    long = sent.result(seq=1, text="x" * 1_500)
    assert core.receive(sent.published_result(0, sent.result(seq=0)), 0.0) == TAKEN
    assert core.receive(sent.published_result(1, long), 0.0).discarded is None
    last = sent.published_result(2, sent.result(seq=2))
    assert core.receive(last, 0.0).discarded == "backlog_full"


def test_gaps_are_counted_within_one_broker_epoch() -> None:
    core = buffer()
    results = [sent.result(seq=seq) for seq in range(5)]
    assert core.receive(sent.published_result(40, results[0]), 0.0).lost == 0
    assert core.receive(sent.published_result(41, results[1]), 0.0).lost == 0
    assert core.receive(sent.published_result(45, results[2]), 0.0).lost == 3
    assert core.receive(sent.published_result(9, results[3], epoch="epoch-2"), 0.0).lost == 0
    assert core.receive(sent.published_result(11, results[4], epoch="epoch-2"), 0.0).lost == 1


def test_a_discarded_publication_is_not_a_gap() -> None:
    core = buffer()
    core.receive(sent.published_result(0, sent.result()), 0.0)
    assert core.receive(sent.published_result(1, sent.result()), 0.0).discarded == "repeated"
    assert core.receive(sent.published_result(2, sent.result(seq=1)), 0.0) == TAKEN


@pytest.mark.parametrize("session_id", ["", "x" * 129, "nul\0"])
def test_session_ids_that_cannot_be_keys_are_refused(session_id: str) -> None:
    reception = buffer().receive(sent.published_result(0, sent.result(session_id)), 0.0)
    assert reception.discarded == "bad_session_id"


def test_partial_results_and_unknown_records_are_refused() -> None:
    partial = sent.published_result(0, sent.result(partial=True))
    assert buffer().receive(partial, 0.0).discarded == "bad_message"
    record = Record(session_id="s", record_seq=0, body={"type": "nonsense"})
    frames = encode(0, PublishedRecord(broker_epoch="e", gateway_id="g", record=record))
    assert buffer().receive(frames, 0.0).discarded == "bad_message"


def test_random_frames_never_raise() -> None:
    rng = random.Random(7)
    good = sent.published_result(0, sent.result())
    core = buffer(pending_rows_max=1_000_000)
    for _ in range(2_000):
        frames = list(good)
        place = rng.randrange(len(frames))
        damaged = bytearray(frames[place])
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        frames[place] = bytes(damaged)
        core.receive(frames[: rng.randrange(1, len(frames) + 1)], 0.0)
    assert core.receive(sent.published_result(1, sent.result(seq=99)), 0.0).discarded is None


def test_confirmations_fit_into_a_message() -> None:
    core = buffer(batch_rows_max=5_000, pending_rows_max=5_000, pending_bytes_max=1 << 30)
    session_id = "語" * 128
    for seq in range(2_500):
        core.receive(sent.published_result(seq, sent.result(session_id, seq)), 0.0)
    batch = take(core)
    messages = [stored for _, stored in core.committed(batch, batch)]
    assert [len(m.keys) for m in messages] == [STORED_KEYS_MAX, STORED_KEYS_MAX, 500]
    for message in messages:
        assert message.superseded == tuple(range(len(message.keys)))
        assert codec.decode(codec.encode(message)) == message


@pytest.mark.parametrize("seed", range(50))
def test_every_accepted_publication_is_confirmed_once(seed: int) -> None:
    """In any order, and within the limits."""
    rng = random.Random(seed)
    core = buffer()
    now_s, sequence, writing = 0.0, 0, None
    taken: list[StoredKey] = []
    confirmed: list[StoredKey] = []
    for _ in range(400):
        now_s += rng.choice([0.0, 0.1, 0.6])
        action = rng.random()
        if action < 0.6:
            message = sent.result(seq=rng.randrange(30))
            reception = core.receive(sent.published_result(sequence, message), now_s)
            sequence += 1
            if reception.discarded is None:
                taken.append(key(message.seq))
        elif writing is None:
            writing = core.take_batch(now_s)
            if writing is not None:
                assert 1 <= sum(e.rows for e in writing) <= LIMITS.batch_rows_max
        else:
            for _, message_out in core.committed(writing):
                confirmed.extend(message_out.keys)
            writing = None
        assert 0 <= core.rows <= LIMITS.pending_rows_max
        assert core.rows == len(taken) - len(confirmed)
    if writing is not None:
        for _, message_out in core.committed(writing):
            confirmed.extend(message_out.keys)
    while (batch := core.take_batch(now_s, draining=True)) is not None:
        for _, message_out in core.committed(batch):
            confirmed.extend(message_out.keys)
    assert confirmed == taken
    assert (core.rows, core.bytes) == (0, 0)


def test_each_broker_has_a_sequence_and_confirms_what_it_published() -> None:
    core = buffer()
    first = sent.published_result(5, sent.result(seq=0), gateway_id="g")
    second = sent.published_result(90, sent.result(seq=1), gateway_id="g")
    again = sent.published_result(91, sent.result(seq=0), gateway_id="g")
    assert core.receive(first, 0.0, "one") == TAKEN
    assert core.receive(second, 0.0, "two") == TAKEN
    assert core.receive(again, 0.0, "two").discarded == "repeated"
    later = sent.published_result(8, sent.result(seq=2), gateway_id="g")
    assert core.receive(later, 0.0, "one").lost == 2
    assert core.committed(take(core)) == [
        ("one", Stored(gateway_id="g", keys=(key(0), key(2)))),
        ("two", Stored(gateway_id="g", keys=(key(1),))),
    ]


@pytest.mark.parametrize(
    ("connected", "routes"),
    [
        ({"0": True, "1": True}, ["0"]),
        ({"0": False, "1": True, "2": True}, ["1", "2"]),
        ({"1": True, "2": False}, ["1"]),
        ({"0": False, "1": False}, ["0"]),
        ({"1": False}, []),
    ],
)
def test_another_broker_confirms_for_one_that_is_away(
    connected: dict[str, bool], routes: list[str]
) -> None:
    assert routes_of("0", connected) == routes
