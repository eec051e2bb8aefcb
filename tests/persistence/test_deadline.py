from __future__ import annotations

import threading

import psycopg
import pytest

from persistence.deadline import cut, cut_after


def test_a_slow_statement_is_cut(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(psycopg.OperationalError), cut_after(connection, 0.05):
            connection.execute("SELECT pg_sleep(60)")
        assert connection.broken


def test_a_quick_statement_is_left_alone(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        before = threading.active_count()
        with cut_after(connection, 3_600):
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.execute("SELECT 2").fetchone() == (2,)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(10)
    assert threading.active_count() <= before


def test_cutting_twice_or_after_the_end_is_harmless(database: str) -> None:
    connection = psycopg.connect(database)
    cut(connection)
    cut(connection)
    connection.close()
    cut(connection)
