"""Real services for the tests: started once per test run from the wheels, or given by URL."""

from __future__ import annotations

import faulthandler
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
import redis
from _pytest.faulthandler import fault_handler_stderr_fd_key

import gateway  # noqa: F401  # sets the threads of numpy, which is not imported before
from runtime import settings
from tools.lab.harness import database as databases
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import LoggedProcess

# hypothesis measures wall time, and a busy machine is no failure.
hypothesis.settings.register_profile(
    "project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("project")

gc.disable()
"""Until all tests are collected: thousands of objects that stay."""

LONG_FILES = (
    "tools/lab/bench/test_main.py",
    "integration/test_several_brokers.py",
    "integration/test_pages.py",
    "integration/test_scaling.py",
    "integration/test_mixed_releases.py",
    "simulation/test_schedule.py",
    "tools/lab/hosts/test_main.py",
    "integration/test_outside_contacts.py",
    "integration/test_loadtest.py",
    "tools/lab/loadtest/test_main.py",
    "tools/lab/test_product_accuracy.py",
    "tools/training/test_hotwords.py",
    "asr_worker/recognizer/test_paraformer.py",
    "asr_worker/recognizer/test_whisper.py",
)
"""Files that take long. With several processes they are the first, so that at the end none is busy
with one of them while the others have nothing left to do."""


FAILURE_LINES = 20
TEARDOWN_S_MAX = 120.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER"):
        order = {Path(__file__).parent / name: place for place, name in enumerate(LONG_FILES)}
        items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """With several processes pytest shows failures at the end of the run only, which a run that is
    cut off does not reach."""
    if report.failed and hasattr(report, "node"):
        last = "\n".join(report.longreprtext.splitlines()[-FAILURE_LINES:])
        print(f"\n{report.nodeid}, {report.when}, {report.duration:.1f} s:\n{last}", flush=True)


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """After a failure neither ``timeout`` nor ``faulthandler_timeout`` counts any more, but
    fixtures and tasks may hang when they end."""
    if isinstance(node, pytest.Item):
        stderr = node.config.stash[fault_handler_stderr_fd_key]
        faulthandler.dump_traceback_later(TEARDOWN_S_MAX, exit=True, file=stderr)


@dataclass(frozen=True)
class EmbeddedServices:
    """Addresses of the run's PostgreSQL and Redis-protocol server."""

    database_url: str
    redis_url: str
    data_dir: Path


@pytest.fixture(scope="session")
def embedded_services(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EmbeddedServices]:
    """``python -m tools.embedded`` in a directory of its own, or the servers in TEST_DATABASE_URL
    and TEST_REDIS_URL. The database role must be allowed to CREATE DATABASE."""
    data_dir = tmp_path_factory.mktemp("services") / "data"
    given = {
        name: url
        for name in ("DATABASE_URL", "REDIS_URL")
        if (url := os.environ.get(f"TEST_{name}"))
    }
    database = settings.DatabaseSettings(data_dir=data_dir, database_url=None, db_host=None)
    redis = settings.RedisSettings(data_dir=data_dir, redis_url=None)
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir), **given) as process:
        process.event("embedded_services_ready")
        yield EmbeddedServices(
            database_url=given.get("DATABASE_URL", database.database_address()),
            redis_url=given.get("REDIS_URL", redis.redis_address()),
            data_dir=data_dir,
        )


@pytest.fixture
def database(embedded_services: EmbeddedServices) -> Iterator[str]:
    """URL of an empty database, dropped after the test."""
    with databases.temporary(embedded_services.database_url) as url:
        yield url


@pytest.fixture
def unused_tcp_port() -> int:
    """Replaces that of pytest-asyncio, which an outgoing connection of any process may get."""
    return free_port()


@pytest.fixture
def redis_database(embedded_services: EmbeddedServices) -> str:
    """URL of an empty Redis database that the shared pipeline does not use: sums over all gateways
    count the test's own gateways only."""
    separator = "&" if "?" in embedded_services.redis_url else "?"
    url = f"{embedded_services.redis_url}{separator}db=9"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url
