"""Sizes of fleets, and the bare loop."""

from __future__ import annotations

from tools.lab.bench import dispatch


def test_workers_are_spread_over_processes() -> None:
    assert dispatch.fleets(1) == [1]
    assert dispatch.fleets(16) == [16]
    assert dispatch.fleets(33) == [16, 16, 1]


def test_a_bare_loop_is_the_service_time() -> None:
    assert 0.5 / dispatch.SERVICE_S < dispatch.bare_per_s() <= 1 / dispatch.SERVICE_S
