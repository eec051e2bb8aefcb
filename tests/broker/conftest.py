"""Fixtures for tests of the routing core."""

from __future__ import annotations

import pytest

from tests.broker.driving import Driver


@pytest.fixture
def driver() -> Driver:
    """A driver with a gateway and a worker."""
    driver = Driver()
    driver.hello()
    assert driver.ready() == []
    return driver
