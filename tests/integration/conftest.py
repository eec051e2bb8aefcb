"""One pipeline shared by the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import EmbeddedServices
from tools.lab.harness import database
from tools.lab.harness.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(embedded_services: EmbeddedServices) -> Iterator[Stack]:
    """Broker, one worker with two children, persistence, one gateway, and a database of its own."""
    url = database.create(embedded_services.database_url, "stack")
    with running_stack(url, embedded_services.redis_url) as running:
        running.start_all(workers=2)
        yield running
