"""Malformed frames at a real broker."""

from __future__ import annotations

from pathlib import Path

from tests.broker.bus_peers import Endpoints, running_broker
from tools.lab.fuzz.bus import BusFuzzer


def test_every_message_is_sent_and_expected_to_be_counted(tmp_path: Path) -> None:
    ends = Endpoints.under(tmp_path)
    with running_broker(ends, REDIS_URL="unix:///nonexistent/redis.sock"):
        fuzzer = BusFuzzer(ends.frontend, ends.backend, seed=2, first=0, count=300)
        fuzzer.start()
        assert fuzzer.join(60)
    assert fuzzer.problem is None and fuzzer.sent == 300
    assert fuzzer.taken + fuzzer.expected.total() == 300


def test_it_stops_early(tmp_path: Path) -> None:
    ends = Endpoints.under(tmp_path)
    with running_broker(ends, REDIS_URL="unix:///nonexistent/redis.sock"):
        fuzzer = BusFuzzer(ends.frontend, ends.backend, seed=2, first=0, count=10_000_000)
        fuzzer.start()
        assert not fuzzer.join(0.2)
        fuzzer.stop()
        assert fuzzer.join(60)
    assert 0 < fuzzer.sent < 10_000_000
