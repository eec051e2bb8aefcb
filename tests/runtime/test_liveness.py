from __future__ import annotations

import os

import pytest

from runtime.liveness import Liveness, LivenessWatch


def child_end(watch: LivenessWatch, monkeypatch: pytest.MonkeyPatch) -> Liveness:
    """What the child would make of its environment, in this process."""
    for name, value in watch.environment().items():
        monkeypatch.setenv(name, value)
    return Liveness.from_environment()


def test_a_beat_ends_the_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = LivenessWatch(silence_s_max=2.0, now_s=0.0)
    liveness = child_end(watch, monkeypatch)
    assert not watch.is_silent(1.0)
    assert not watch.is_silent(2.0)
    assert watch.is_silent(2.1)
    liveness.beat()
    assert not watch.is_silent(3.0)
    assert not watch.is_silent(4.0)
    assert not watch.is_silent(5.0)
    assert watch.is_silent(5.1)
    watch.close()


def test_our_own_pause_is_not_the_childs_silence() -> None:
    watch = LivenessWatch(silence_s_max=2.0, now_s=0.0)
    assert not watch.is_silent(1.0)
    assert not watch.is_silent(100.0)
    assert not watch.is_silent(101.0)
    assert watch.is_silent(101.1)
    watch.close()


def test_more_beats_than_a_pipe_holds_block_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = LivenessWatch(silence_s_max=2.0, now_s=0.0)
    liveness = child_end(watch, monkeypatch)
    for _ in range(100_000):
        liveness.beat()
    assert not watch.is_silent(1.0)
    watch.close()


def test_a_supervisor_that_is_gone_is_no_error() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    Liveness(write_fd).beat()
    os.close(write_fd)


def test_without_a_supervisor_beats_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPERVISOR_LIVENESS_FD", raising=False)
    Liveness.from_environment().beat()
