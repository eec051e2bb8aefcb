"""Deadlines with a real PostgreSQL that is slow, locked or stopped; warnings of plain links."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from psycopg.errors import ConnectionTimeout
from structlog.testing import capture_logs

from persistence import connections
from persistence.connections import AsyncDeadlineConnection, DeadlineConnection

SLACK_S = 20.0
"""Tolerance for a machine under load. The statements themselves take a minute, or for ever."""


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def at_most(limit_s: float) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    assert time.monotonic() - began_s < limit_s + SLACK_S


def test_a_slow_statement_ends_at_the_deadline(database: str) -> None:
    with DeadlineConnection.connect(database, autocommit=True) as connection:
        with at_most(0.2), pytest.raises(ConnectionTimeout), connection.deadline(0.2):
            connection.execute("SELECT pg_sleep(60)")
        assert connection.closed


def test_a_stopped_server_is_given_up_in_the_middle_of_a_transaction(database: str) -> None:
    with DeadlineConnection.connect(database, autocommit=True) as connection:
        with (
            stopped(connection.info.backend_pid),
            at_most(0.2),
            pytest.raises(ConnectionTimeout),
            connection.deadline(0.2),
            connection.transaction(),
        ):
            connection.execute("SELECT 1")
        assert connection.closed


def test_the_deadline_is_for_all_statements_together(database: str) -> None:
    with DeadlineConnection.connect(database, autocommit=True) as connection:
        done = 0
        with pytest.raises(ConnectionTimeout), connection.deadline(0.5):
            for _ in range(100):
                connection.execute("SELECT pg_sleep(0.1)")
                done += 1
        assert done < 6


def test_a_transaction_that_is_cut_off_is_rolled_back(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("CREATE TABLE numbers (number integer)")
    with (
        DeadlineConnection.connect(database, autocommit=True) as connection,
        pytest.raises(ConnectionTimeout),
        connection.deadline(0.2),
        connection.transaction(),
    ):
        connection.execute("INSERT INTO numbers VALUES (1)")
        # Longer than a busy machine keeps this process still: an answer that is there is taken.
        connection.execute("SELECT pg_sleep(5)")
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE numbers")
        assert other.execute("SELECT count(*) FROM numbers").fetchone() == (0,)


def test_other_errors_and_later_calls_are_unaffected(database: str) -> None:
    with DeadlineConnection.connect(database, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero), connection.deadline(3_600):
            connection.execute("SELECT 1 / 0")
        with connection.deadline(0.0):
            pass
        with pytest.raises(psycopg.errors.QueryCanceled), connection.deadline(3_600):
            connection.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_a_server_that_ends_is_not_reported_as_a_timeout(database: str) -> None:
    with (
        DeadlineConnection.connect(database, autocommit=True) as connection,
        pytest.raises(psycopg.OperationalError) as raised,
        connection.deadline(3_600),
    ):
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert not isinstance(raised.value, ConnectionTimeout)


async def test_a_stopped_server_is_given_up_on_the_event_loop(database: str) -> None:
    async with await AsyncDeadlineConnection.connect(database, autocommit=True) as connection:
        with (
            stopped(connection.info.backend_pid),
            at_most(0.2),
            pytest.raises(ConnectionTimeout),
            connection.deadline(0.2),
        ):
            await connection.execute("SELECT 1")
        assert connection.closed


async def test_an_answer_in_time_is_returned_on_the_event_loop(database: str) -> None:
    async with await AsyncDeadlineConnection.connect(database, autocommit=True) as connection:
        with connection.deadline(3_600):
            cursor = await connection.execute("SELECT 1")
            assert await cursor.fetchone() == (1,)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    connections._warn.cache_clear()
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
            connections.warn_if_plain(connection(host, hostaddr, encrypted=encrypted))
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
        connections.warn_if_plain(real)
    assert logs == []


def test_a_reason_quotes_no_row(database: str) -> None:
    reasons = []
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE texts (words text UNIQUE, number integer)")
        connection.execute("INSERT INTO texts VALUES ('secret', 1)")
        for statement in (
            "INSERT INTO texts VALUES ('secret', 1)",
            "INSERT INTO texts VALUES ('x', 'secret'::text::integer)",
            "INSERT INTO nowhere VALUES ('secret')",
        ):
            with pytest.raises(psycopg.Error) as failed:
                connection.execute(statement.encode())
            reasons.append(connections.reason_of(failed.value))
    assert reasons == ["", "", 'relation "nowhere" does not exist']
    assert connections.reason_of(psycopg.OperationalError("connection failed: secret")) == ""
