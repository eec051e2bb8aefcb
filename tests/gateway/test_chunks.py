from gateway.chunks import ChunkLedger


def test_repeat_conflict_and_gap_are_told_apart() -> None:
    ledger = ChunkLedger()
    assert ledger.receive(0, b"aa") == "new"
    assert ledger.receive(1, b"bb") == "new"
    assert ledger.receive(0, b"aa") == "repeated"
    assert ledger.receive(1, b"bX") == "conflict"
    assert ledger.receive(3, b"dd") == "gap"
    assert ledger.next_index == 2


def test_acknowledging_is_cumulative_and_told_once() -> None:
    ledger = ChunkLedger()
    assert ledger.acknowledge(1.0) is None
    ledger.receive(0, b"a")
    ledger.receive(1, b"b")
    assert ledger.unacked == 2
    assert ledger.acknowledge(2.0) == 1
    assert (ledger.unacked, ledger.acked_at_s) == (0, 2.0)
    assert ledger.acknowledge(3.0) is None
