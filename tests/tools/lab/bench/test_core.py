"""Stages of the broker's work."""

from __future__ import annotations

import pytest

from tools.lab.bench import core


@pytest.mark.parametrize("subscriber", [False, True])
def test_each_stage_takes_time(monkeypatch: pytest.MonkeyPatch, subscriber: bool) -> None:
    monkeypatch.setattr(core, "PAIRS", 2_000)
    taken = core.microseconds(subscriber=subscriber)
    assert set(taken) == {"decoding", "routing", "encoding"}
    assert all(value > 0 for value in taken.values())


def test_every_waiting_job_is_answered_once() -> None:
    assert core.waiting_us(workers=3, sessions=50, rounds=2) > 0
