"""A worker's connection that is replaced while the worker and the broker live on."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from tests.broker.bus_peers import Dealer, Endpoints, running_broker
from tests.broker.driving import job
from tools.lab.chaos.proxy import Address, Proxy
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import LoggedProcess
from wire.messages import Hello, Load, Result, Welcome

DEADLINE_S = 60.0
"""Of an attempt: without the worker's report, a lost job would wait so long."""
ANSWER_S_MAX = 15.0


def test_jobs_lost_with_a_connection_are_sent_again_at_once(tmp_path: Path) -> None:
    ends = Endpoints.on_tcp()
    relay = free_port()
    with ExitStack() as stack:
        settings = {"REDIS_URL": "unix:///nonexistent", "BROKER_ATTEMPT_DEADLINE_S": "60"}
        stack.enter_context(running_broker(ends, BROKER_LEASE_S="60", **settings))
        proxy = Proxy(Address(relay), Address(int(ends.backend.rpartition(":")[2])))
        proxy.start()
        stack.callback(proxy.stop)
        worker = {"BROKER_BACKEND": f"tcp://127.0.0.1:{relay}", "ASR_MODEL": "fake:1ms"}
        stack.enter_context(LoggedProcess("asr_worker.service", **worker))
        gateway = stack.enter_context(Dealer(ends.frontend, "gateway-1"))
        gateway.send(Hello(gateway_id="gateway-1"))
        gateway.receive(Welcome)
        while gateway.receive(Load).workers != 1:
            gateway.send(Hello(gateway_id="gateway-1"))
        proxy.clog(out=False)  # From now on the worker receives nothing.
        gateway.send(job())
        while gateway.receive(Load).in_flight != 1:
            gateway.send(Hello(gateway_id="gateway-1"))
        began_s = time.monotonic()
        proxy.hang_up()
        assert gateway.receive(Result).seq == 0
        assert time.monotonic() - began_s < ANSWER_S_MAX < DEADLINE_S
