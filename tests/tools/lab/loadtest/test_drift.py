from __future__ import annotations

import math

import pytest

from tools.lab.loadtest.drift import SPAN_S, Drift, drifts, span_s, table
from tools.lab.loadtest.samples import Sample
from tools.lab.loadtest.user import Outcome

RUN_S = 4 * SPAN_S


def outcome(slower: float, until_s: float = RUN_S) -> Outcome:
    """A session with a text every 10 s; latency is ``slower`` times as long in the last part."""
    found = Outcome(session_id="s", expected="one", began_s=5.0)
    found.status = "succeeded"
    found.ended_s = until_s
    found.segment_ms = [
        (at_s, 1_000.0 * (slower if at_s >= until_s - SPAN_S else 1.0))
        for at_s in range(10, int(until_s), 10)
    ]
    return found


def samples(growth_mb: float) -> list[Sample]:
    return [
        Sample(
            float(at_s), {}, {"gateway": mb}, {"gateway": mb / 2}, {"gateway": 20}, {"queued": 0}
        )
        for at_s in range(0, int(RUN_S), 5)
        for mb in [100.0 + growth_mb * at_s]
    ]


def growth(found: list[Drift], what: str) -> float:
    (one,) = (each for each in found if each.what.startswith(what))
    return one.growth_percent


def test_constant_values_do_not_grow() -> None:
    found = drifts([outcome(1.0), outcome(1.0)], samples(0.0))
    assert len(found) == 7
    assert all(each.growth_percent == 0.0 for each in found)


def test_growth_is_found() -> None:
    found = drifts([outcome(1.3), outcome(1.3)], samples(0.1))
    assert growth(found, "segment end → result, p95") == pytest.approx(30.0)
    assert growth(found, "memory of gateway") > 50.0
    assert growth(found, "allocated") == pytest.approx(growth(found, "memory of gateway"))
    assert growth(found, "descriptors of gateway") == 0.0


def test_a_slower_machine_shows_in_the_yardstick() -> None:
    looks = samples(0.0)
    for look in looks:
        look.yardstick_us = 500.0 if look.at_s < RUN_S / 2 else 600.0
    assert growth(drifts([outcome(1.2)], looks), "the machine") == pytest.approx(20.0)


@pytest.mark.parametrize(("every_s", "part_s"), [(300.0, 300.0), (70.0, 280.0), (1_000.0, 1_000.0)])
def test_parts_with_the_same_restarts_are_compared(every_s: float, part_s: float) -> None:
    """Each restart of the gateway delays the texts of 60 s; the run does not begin with one."""
    one = outcome(1.0, until_s=5 * part_s + 100.0)
    one.segment_ms = [
        (at_s, 9_000.0 if at_s >= every_s and at_s % every_s < 60.0 else 1_000.0)
        for at_s in range(10, int(one.ended_s), 10)
    ]
    assert span_s(every_s) == part_s
    assert growth(drifts([one], samples(0.0), every_s), "segment end → result, p95") == 0.0
    slower = [(at_s, ms * (1.5 if at_s > 3 * part_s else 1.0)) for at_s, ms in one.segment_ms]
    one.segment_ms = slower
    found = drifts([one], samples(0.0), every_s)
    assert growth(found, "segment end → result, p95") == pytest.approx(50.0)
    assert f"| first {part_s / 60:.3g} minutes with the same restarts |" in table(found, every_s)[0]
    assert drifts([outcome(1.0, until_s=3 * part_s + every_s / 2)], samples(0.0), every_s) == []


def test_growth_from_zero_is_infinite() -> None:
    assert Drift("jobs", 0.0, 3.0).growth_percent == math.inf
    assert Drift("jobs", 0.0, 0.0).growth_percent == 0.0


def test_a_short_run_has_no_first_and_last_part() -> None:
    assert drifts([outcome(1.0, until_s=2 * SPAN_S)], samples(0.0)) == []
    assert drifts([], []) == []
    assert table([]) == []
