"""What tests of the routing core begin with."""

from __future__ import annotations

import pytest

from tests.broker.driving import Driver


@pytest.fixture
def driver() -> Driver:
    """With a gateway and a worker."""
    driver = Driver()
    driver.hello()
    assert driver.ready() == []
    return driver
