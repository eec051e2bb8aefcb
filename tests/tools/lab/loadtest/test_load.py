"""Silences, latencies and audio within a span."""

from __future__ import annotations

import pytest

from tools.lab.loadtest.load import longest_pause_s, slowest_ms
from tools.lab.loadtest.user import Outcome


def outcome(*texts: tuple[float, float]) -> Outcome:
    """Texts received at these seconds, with these latencies in ms."""
    return Outcome("s", "", segment_ms=list(texts))


@pytest.mark.parametrize(
    ("received_s", "pause_s"),
    [
        ([4.0, 6.0, 9.0], 3.0),
        ([4.0, 6.0, 30.0, 31.0], 24.0),  # The silence extends beyond the span.
        ([4.0, 30.0], 25.0),
        ([4.0], 0.0),
    ],
)
def test_a_silence_counts_to_its_end(received_s: list[float], pause_s: float) -> None:
    outcomes = [outcome((at_s, 900.0)) for at_s in received_s]
    assert longest_pause_s(outcomes, 5.0, 25.0) == pause_s


def test_a_text_counts_if_it_was_due_in_the_span() -> None:
    late, later, before = (30.0, 12_000.0), (30.0, 900.0), (4.0, 20_000.0)
    assert slowest_ms([outcome(late, later, before)], 5.0, 25.0) == 12_000.0
    assert slowest_ms([outcome(later, before)], 5.0, 25.0) == 0.0
