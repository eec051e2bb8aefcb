from gateway.chunks import ChunkLedger
from wire.records import ChunkDetail


def test_repeat_conflict_and_gap_are_told_apart() -> None:
    ledger = ChunkLedger()
    assert ledger.receive(0, b"aa") == "new"
    assert ledger.receive(1, b"bb") == "new"
    assert ledger.receive(0, b"aa") == "repeated"
    assert ledger.receive(1, b"bX") == "conflict"
    assert ledger.receive(3, b"dd") == "gap"
    assert ledger.next_index == 2


def test_details_are_handed_over_once() -> None:
    ledger = ChunkLedger()
    detail = ChunkDetail(chunk_index=0, byte_count=2, offset_ms=0, duration_ms=1, received_at_ms=5)
    ledger.note(detail)
    assert ledger.unrecorded_count == 1
    assert ledger.take_details() == (detail,)
    assert ledger.take_details() == ()
