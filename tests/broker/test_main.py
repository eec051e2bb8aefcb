"""The entry point, as a process."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from runtime import exit_codes
from tests.broker.bus_peers import Endpoints, running_broker
from tools.lab.harness.process import LoggedProcess

NO_REDIS = {"REDIS_URL": "unix:///nonexistent/redis.sock"}


@pytest.fixture
def endpoints(tmp_path: Path) -> Endpoints:
    return Endpoints.under(tmp_path)


def test_sigterm_ends_it_with_code_0(endpoints: Endpoints) -> None:
    with running_broker(endpoints, **NO_REDIS) as broker:
        assert broker.terminate() == exit_codes.OK
        assert any(event["event"] == "broker_stopped" for event in broker.events)


def test_its_memory_is_limited(endpoints: Endpoints) -> None:
    with running_broker(endpoints, BROKER_MEMORY_MB_MAX="500", **NO_REDIS) as broker:
        limits = psutil.Process(broker.pid).rlimit(resource.RLIMIT_DATA)
        assert limits == (500_000_000, 500_000_000)


@pytest.mark.parametrize("thread", ["main", "another"])
def test_it_exits_at_the_limit(endpoints: Endpoints, thread: str) -> None:
    """Even where an orderly exit would block."""
    code = f"""
import threading, broker.__main__ as main
from broker.queue_counters import QueueCounters
from broker.service import Service

def allocate(*_arguments):
    bytes(1 << 30)

if {thread!r} == "main":
    Service.turn = allocate
else:
    QueueCounters._run = allocate
Service.close = lambda _service: threading.Event().wait()
main.main()
"""
    environment = {**os.environ, **endpoints.environment, **NO_REDIS, "BROKER_MEMORY_MB_MAX": "400"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)
    assert ended.returncode == exit_codes.FAILURE


def test_a_wrong_setting_is_one_line(endpoints: Endpoints) -> None:
    environment = {**endpoints.environment, "BROKER_LEASE_S": "0"}
    with LoggedProcess("broker", **environment, **NO_REDIS) as process:
        assert process.wait() == exit_codes.CONFIG
    assert [line for line in process.lines if "BROKER_LEASE_S" in line]
