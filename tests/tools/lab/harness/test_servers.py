"""Servers on the network. Tests that use them have those with TLS, Sentinel and replicas."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tools.lab.harness.ports import free_port
from tools.lab.harness.servers import PostgresServer, RedisServer


def test_a_server_answers_until_it_is_stopped(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "postgres", "127.0.0.1", free_port()) as server:
        psycopg.connect(server.url).close()
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url)
        server.start()
        psycopg.connect(server.url).close()


def test_a_server_that_cannot_start_shows_why(tmp_path: Path) -> None:
    wrong = RedisServer(tmp_path / "redis", "127.0.0.1", free_port(), "--no-such-option", "1")
    with pytest.raises(AssertionError, match="no-such-option"), wrong:
        pass
