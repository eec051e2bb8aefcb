"""Workers that share a process."""

from __future__ import annotations

from tests.asr_worker.broker_side import BrokerSide
from wire.messages import Ready


def test_each_worker_of_a_fleet_sends_ready() -> None:
    with BrokerSide() as side:
        side.start("tools.lab.bench.fleet", "3", ASR_MODEL="fake:1ms")
        identities = {side.wait_for(Ready)[0] for _ in range(3)}
    assert len(identities) == 3
