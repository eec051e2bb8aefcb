from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session.transcript_store import RESULTS_PER_BLOCK, TranscriptStore
from tests.persistence import sent
from wire.messages import Failure, Result, Token


def result(seq: int) -> Result:
    words = tuple(Token(text=f"w{i}", start_ms=seq * 900 + i, end_ms=seq + i) for i in range(6))
    failed = seq % 5 == 4
    return sent.result(
        seq=seq,
        text=None if failed else f"one 二 {seq}",
        error=Failure(code="chunk_failed", message="three times") if failed else None,
        tokens=() if failed else words,
        generation=1,
        events=("music",) if seq == 3 else (),
        resume_sample=seq * 16_000,
    )


def log_of(count: int) -> TranscriptStore:
    log = TranscriptStore()
    for seq in range(count):
        log.append(result(seq))
    return log


@given(st.integers(0, 5 * RESULTS_PER_BLOCK), st.integers(0, 6 * RESULTS_PER_BLOCK))
def test_results_survive_packing(count: int, index: int) -> None:
    log = log_of(count)
    expected = [result(seq) for seq in range(count)]
    assert len(log) == count
    assert list(log) == expected
    assert list(log.since(index)) == expected[index:]


@pytest.mark.parametrize("count", [2_000])
def test_a_long_session_takes_little_memory(count: int) -> None:
    log = log_of(count)
    packed = sys.getsizeof(log._packed) + sys.getsizeof(log._ends)
    assert packed / count < 80
    newest = sum(len(memoryview(packed)) for packed in log._newest)
    assert newest < RESULTS_PER_BLOCK * 800
