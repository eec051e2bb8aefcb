from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from structlog.testing import capture_logs

from persistence import link_warning


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    link_warning._warn.cache_clear()
    yield


def connection(host: str, hostaddr: str, *, encrypted: bool) -> psycopg.Connection[Any]:
    found = SimpleNamespace(
        pgconn=SimpleNamespace(ssl_in_use=encrypted),
        info=SimpleNamespace(host=host, hostaddr=hostaddr),
    )
    return cast(psycopg.Connection[Any], found)


def warnings(host: str, hostaddr: str, *, encrypted: bool = False) -> list[str]:
    with capture_logs() as logs:
        for _ in range(2):
            link_warning.warn_if_plain(connection(host, hostaddr, encrypted=encrypted))
    return [line["host"] for line in logs if line["event"] == "database_link_plain"]


def test_one_warning_for_a_plain_link_to_another_host() -> None:
    assert warnings("db.example", "192.0.2.7") == ["192.0.2.7"]
    assert warnings("db.example", "2001:db8::7") == ["2001:db8::7"]


@pytest.mark.parametrize(
    ("host", "hostaddr"),
    [("/run/postgresql", ""), ("localhost", "127.0.0.1"), ("::1", "::1"), ("", "")],
)
def test_none_on_this_host(host: str, hostaddr: str) -> None:
    assert warnings(host, hostaddr) == []


def test_none_with_tls() -> None:
    assert warnings("db.example", "192.0.2.7", encrypted=True) == []


def test_a_real_connection_has_the_attributes_that_are_read(database: str) -> None:
    with psycopg.connect(database) as real, capture_logs() as logs:
        link_warning.warn_if_plain(real)
    assert logs == []
