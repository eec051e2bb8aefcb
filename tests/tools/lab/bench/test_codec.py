"""The time of one call."""

from __future__ import annotations

import pytest

from tools.lab.bench import codec


def test_the_time_of_a_call_in_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MEASURE_S", 0.02)
    short_us = codec.microseconds(lambda: sum(range(10)))
    assert 0 < short_us < codec.microseconds(lambda: sum(range(10_000)))
