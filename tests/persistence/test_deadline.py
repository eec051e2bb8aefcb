"""Deadlines with a real PostgreSQL that is slow, locked or stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.errors import ConnectionTimeout

from persistence.deadline import AsyncDeadlineConnection, DeadlineConnection

SLACK_S = 5.0
"""Tolerance for a machine under load. psycopg's own time-outs are longer."""


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
        connection.execute("SELECT pg_sleep(1)")
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE numbers")
        assert other.execute("SELECT count(*) FROM numbers").fetchone() == (0,)


def test_other_errors_and_later_calls_are_unaffected(database: str) -> None:
    with DeadlineConnection.connect(database, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero), connection.deadline(3_600):
            connection.execute("SELECT 1 / 0")
        with connection.deadline(0.0):
            pass
        connection.execute("SET statement_timeout = 10")
        with pytest.raises(psycopg.errors.QueryCanceled), connection.deadline(3_600):
            connection.execute("SELECT pg_sleep(60)")
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
