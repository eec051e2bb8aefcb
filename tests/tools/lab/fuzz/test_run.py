"""The fuzzer's own checks see what they are for."""

from __future__ import annotations

from tools.lab.fuzz.observe import Look
from tools.lab.fuzz.run import grown, lives_changed, miscounted

INCIDENTS = "asr_broker_incidents_total"


def looked(counted: float = 0, began: float = 1) -> Look:
    broker = {
        (INCIDENTS, (("reason", "front_malformed"),)): counted,
        ("process_start_time_seconds", ()): began,
    }
    return Look({0: broker})


def test_a_message_not_counted_or_counted_twice_is_seen() -> None:
    before = looked(5)
    assert miscounted(before, looked(7), {"front_malformed": 2}) == []
    assert miscounted(before, looked(6), {"front_malformed": 2})
    assert miscounted(before, looked(8), {"front_malformed": 2})


def test_a_process_that_ended_or_began_anew_is_seen() -> None:
    assert lives_changed(looked(), looked()) == []
    assert lives_changed(looked(), looked(began=2)) == ["broker at port offset 0 has ended"]
    assert lives_changed(looked(), Look({})) == ["broker at port offset 0 has ended"]


def test_memory_that_grows_is_seen() -> None:
    assert grown({"broker +0": [100, 101, 105]}) == []
    assert len(grown({"broker +0": [100, 120, 140]})) == 1
