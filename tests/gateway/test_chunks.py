from gateway.chunks import ChunkLedger


def test_repeat_conflict_and_gap_are_told_apart() -> None:
    ledger = ChunkLedger()
    assert ledger.receive(0, b"aa") == "new"
    assert ledger.receive(1, b"bb") == "new"
    assert ledger.receive(0, b"aa") == "repeated"
    assert ledger.receive(1, b"bX") == "conflict"
    assert ledger.receive(3, b"dd") == "gap"
    assert ledger.next_index == 2
