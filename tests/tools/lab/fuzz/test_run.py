"""The checks of a run fail for what they exist to find."""

from __future__ import annotations

from tools.lab.fuzz.run import STARTED, grown, lives_changed, miscounted
from tools.lab.harness.metrics import Metrics

INCIDENTS = "asr_broker_incidents_total"


def scraped(counted: float = 0, began: float = 1) -> Metrics:
    broker = {
        (INCIDENTS, (("reason", "front_malformed"),)): counted,
        (STARTED, ()): began,
    }
    return Metrics({0: broker})


def test_a_message_not_counted_or_counted_twice_is_found() -> None:
    before = scraped(5)
    assert miscounted(before, scraped(7), {"front_malformed": 2}) == []
    assert miscounted(before, scraped(6), {"front_malformed": 2})
    assert miscounted(before, scraped(8), {"front_malformed": 2})


def test_a_process_that_ended_or_restarted_is_found() -> None:
    assert lives_changed(scraped(), scraped()) == []
    assert lives_changed(scraped(), scraped(began=2)) == ["broker at port offset 0 has ended"]
    assert lives_changed(scraped(), Metrics({})) == ["broker at port offset 0 has ended"]


def test_growing_memory_is_found() -> None:
    assert grown({"broker +0": [100, 101, 105]}) == []
    assert len(grown({"broker +0": [100, 120, 140]})) == 1
