"""Restarts during a load test: each kind once in the interval, the oldest process first."""

from __future__ import annotations

from typing import Any

from tools.lab.loadtest.restarts import KINDS, Restarts


class _Process:
    def __init__(self, pid: int, terminated: list[int]) -> None:
        self.pid = pid
        self._terminated = terminated

    def terminate(self) -> None:
        self._terminated.append(self.pid)


def test_each_kind_is_restarted_once_in_the_interval() -> None:
    asked: list[str] = []
    terminated: list[int] = []
    lines: list[str] = []

    def living(kind: str) -> list[Any]:
        asked.append(kind)
        return [_Process(KINDS.index(kind), terminated), _Process(99, terminated)]

    restarts = Restarts(40.0, living, lines.append)
    for at_s in range(10):
        restarts.go_on(float(at_s))
    assert asked == []
    for at_s in range(10, 81):
        restarts.go_on(float(at_s))
    assert asked == [*KINDS, *KINDS]
    assert terminated == [0, 1, 2, 3, 0, 1, 2, 3]
    assert lines[0] == "   10 s  restart of broker, process 0"


def test_a_kind_without_a_process_is_passed_over() -> None:
    restarts = Restarts(4.0, lambda _kind: [], print)
    restarts.go_on(4.0)
    assert restarts.count == len(KINDS)
