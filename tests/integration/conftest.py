"""One pipeline shared by the tests that leave it as they found it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.conftest import EmbeddedServices
from tests.integration.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(embedded_services: EmbeddedServices) -> Iterator[Stack]:
    """Broker, one worker with two children, persistence, one gateway, and a database of its own."""
    name = f"stack_{uuid.uuid4().hex}"
    with psycopg.connect(embedded_services.database_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    url = urlsplit(embedded_services.database_url)._replace(path=f"/{name}").geturl()
    with running_stack(url, embedded_services.redis_url) as running:
        running.start_all(workers=2)
        yield running
