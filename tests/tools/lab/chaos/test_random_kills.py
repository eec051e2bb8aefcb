"""Processes that end before the signal."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import psutil

from tools.lab.chaos import random_kills
from tools.lab.chaos.system import System


def test_a_process_that_has_just_ended_does_not_count() -> None:
    def ended() -> None:
        raise psutil.NoSuchProcess(1)

    found: list[list[Any]] = [
        [],
        [SimpleNamespace(pid=1, kill=ended)],
        [SimpleNamespace(pid=2, kill=lambda: None)],
    ]
    system = cast(System, SimpleNamespace(living=lambda _kind: found.pop(0)))
    assert random_kills._kill_one(system, random.Random(1), "gateway").pid == 2
    assert found == []
