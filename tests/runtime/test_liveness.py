from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runtime.liveness import START_FACTOR, Liveness, LivenessWatch

SILENCE_S = 5.0


@pytest.fixture
def starting() -> Iterator[LivenessWatch]:
    watch = LivenessWatch(SILENCE_S, now_s=100.0)
    yield watch
    watch.close()


@pytest.fixture
def watch(starting: LivenessWatch) -> LivenessWatch:
    """Of a child that has beaten once."""
    os.write(starting.child_fd, b"\0")
    assert not starting.is_silent(100.0)
    return starting


def child_end(watch: LivenessWatch, monkeypatch: pytest.MonkeyPatch) -> Liveness:
    for name, value in watch.environment().items():
        monkeypatch.setenv(name, value)
    return Liveness()


def seconds(first: float, last: float) -> list[float]:
    return [first + step / 10 for step in range(int((last - first) * 10) + 1)]


def test_silence_counts_after_the_limit(watch: LivenessWatch) -> None:
    assert not any(watch.is_silent(now_s) for now_s in seconds(100.0, 105.0))
    assert watch.is_silent(105.1)


def test_a_start_may_take_longer(starting: LivenessWatch) -> None:
    end_s = 100.0 + START_FACTOR * SILENCE_S
    assert not any(starting.is_silent(now_s) for now_s in seconds(100.0, end_s))
    assert starting.is_silent(end_s + 0.1)


def test_beats_reset_the_silence(watch: LivenessWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    child = child_end(watch, monkeypatch)
    for now_s in seconds(100.0, 160.0):
        child.beat()
        assert not watch.is_silent(now_s)
    assert not any(watch.is_silent(now_s) for now_s in seconds(160.1, 164.9))
    assert any(watch.is_silent(now_s) for now_s in seconds(165.0, 166.0))


def test_a_pause_of_the_supervisor_is_not_silence_of_the_child(watch: LivenessWatch) -> None:
    assert not watch.is_silent(101.0)
    assert not watch.is_silent(200.0)
    assert not any(watch.is_silent(now_s) for now_s in seconds(200.1, 203.0))
    assert any(watch.is_silent(now_s) for now_s in seconds(203.1, 206.0))


def test_a_full_pipe_does_not_block_the_child(
    watch: LivenessWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = child_end(watch, monkeypatch)
    for _ in range(100_000):
        child.beat()
    assert not watch.is_silent(100.0)


def test_the_variable_is_not_inherited_by_grandchildren(
    watch: LivenessWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_end(watch, monkeypatch)
    assert not watch.environment().keys() & os.environ.keys()


def test_without_a_supervisor_beats_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(os, "write", lambda fd, _data: written.append(fd))
    Liveness().beat()
    assert written == []
