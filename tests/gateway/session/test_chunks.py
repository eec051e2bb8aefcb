from gateway.session.chunks import DIGESTS_KEPT_MAX, ChunkLedger


def test_repeat_conflict_and_gap_are_distinguished() -> None:
    ledger = ChunkLedger()
    assert ledger.receive(0, b"aa") == "new"
    assert ledger.receive(1, b"bb") == "new"
    assert ledger.receive(0, b"aa") == "repeated"
    assert ledger.receive(1, b"bX") == "conflict"
    assert ledger.receive(3, b"dd") == "gap"
    assert ledger.next_index == 2


def test_chunks_before_the_resume_point_are_repeats() -> None:
    ledger = ChunkLedger(first_index=3)
    assert ledger.receive(2, b"x") == "repeated"
    assert ledger.receive(3, b"x") == "new"
    assert ledger.receive(2, b"y") == "repeated"


def test_acknowledgements_are_cumulative_and_sent_once() -> None:
    ledger = ChunkLedger()
    assert ledger.acknowledge(1.0) is None
    ledger.receive(0, b"a")
    ledger.receive(1, b"b")
    assert ledger.unacked == 2
    assert ledger.acknowledge(2.0) == 1
    assert (ledger.unacked, ledger.acked_at_s) == (0, 2.0)
    assert ledger.acknowledge(3.0) is None


def test_only_the_latest_chunks_of_a_long_session_are_compared() -> None:
    ledger = ChunkLedger(first_index=7)
    count = 3 * DIGESTS_KEPT_MAX
    for index in range(7, 7 + count):
        assert ledger.receive(index, b"%d" % index) == "new"
    assert ledger.next_index == 7 + count
    newest = 7 + count - 1
    assert ledger.receive(newest, b"%d" % newest) == "repeated"
    assert ledger.receive(newest, b"x") == "conflict"
    edge = newest - DIGESTS_KEPT_MAX + 1
    assert ledger.receive(edge, b"%d" % edge) == "repeated"
    assert ledger.receive(edge, b"x") == "conflict"
    assert ledger.receive(edge - 1, b"x") == "repeated"
    assert ledger.receive(7, b"x") == "repeated"
    assert ledger.receive(3, b"x") == "repeated"
    assert ledger.receive(7 + count + 1, b"x") == "gap"
