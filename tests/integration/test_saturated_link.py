"""A link to the broker that carries less than the audio: admission sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from gateway.admission.policy import BROKER_DELAY_S_MAX
from gateway.brokers.client import BrokerClient
from tests.broker.bus_peers import Endpoints, running_broker
from tests.broker.driving import job
from tools.lab.chaos.proxy import Address, Proxy
from tools.lab.harness.ports import free_port

WAIT_S = 30.0


async def test_the_answer_to_hello_is_late_behind_jobs(tmp_path: Path) -> None:
    ends = Endpoints.on_tcp()
    relay = free_port()
    with ExitStack() as stack:
        stack.enter_context(running_broker(ends, REDIS_URL="unix:///nonexistent"))
        proxy = Proxy(Address(relay), Address(int(ends.frontend.rpartition(":")[2])))
        proxy.start()
        stack.callback(proxy.stop)
        found = asyncio.Event()
        client = BrokerClient(
            f"tcp://0.0.0.0:{relay}",  # Reaches this host, and counts as another: measured.
            "gateway-1",
            system_id="",
            on_message=lambda _: found.set(),
            on_jobs_lost=lambda: None,
        )
        client.open()
        try:
            await asyncio.wait_for(found.wait(), WAIT_S)
            proxy.delay(0.2)  # For each piece of 64 kB: 2.6 Mbit/s.
            for seq in range(30):
                client.send(job(seq, audio_ms=10_000))
                await asyncio.sleep(0.1)  # HELLOs go in between.
            await _until(lambda: client.answer_delay_s > BROKER_DELAY_S_MAX)
            # The relay reads 64 kB at a time.
            await _until(lambda: 200_000 < client.link_use.capacity < 400_000)
            proxy.heal()
            await _until(lambda: client.answer_delay_s < BROKER_DELAY_S_MAX / 2)
        finally:
            await client.close()


async def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)
