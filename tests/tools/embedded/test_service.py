"""Supervision of the servers: restart after a crash, stop in order."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import psutil
import psycopg

from runtime import exit_codes
from runtime.lifecycle import DRAIN_S
from tests.tools.embedded import patient_servers
from tests.tools.embedded.servers import (
    ask_postgres,
    ask_valkey,
    database_url,
    of_server,
    servers_of,
)
from tools.embedded.postgres import Postgres
from tools.embedded.valkey import Valkey
from tools.lab.harness.process import LoggedProcess


def test_crashed_servers_are_restarted_with_their_data(data_dir: Path) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        with psycopg.connect(database_url(data_dir)) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS x")
        seen = len(process.events)
        for server in servers_of(process).values():
            server.kill()
        for name in ("postgres", "valkey"):
            process.event("server_ready", after=seen, where=partial(of_server, name))
        with psycopg.connect(database_url(data_dir)) as connection:
            assert connection.execute("SELECT x FROM kept").fetchone() == (7,)
        assert ask_valkey(data_dir)


def test_servers_end_with_a_killed_parent_and_start_again(data_dir: Path) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        family = list(servers_of(process).values())
        assert len(family) == 2
        process.kill()
        _gone, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []
    assert (data_dir / "postgres" / "postmaster.pid").exists()
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        assert ask_postgres(data_dir) == 42


def test_connected_clients_can_finish_while_the_database_stops(data_dir: Path) -> None:
    with LoggedProcess(patient_servers.MODULE, DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        with psycopg.connect(database_url(data_dir)) as connection:
            connection.execute("CREATE TABLE last_words (x integer)")
            process.send_signal(signal.SIGTERM)
            connection.execute("INSERT INTO last_words VALUES (1)")
            connection.commit()
        assert process.wait(50.0) == exit_codes.OK
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        with psycopg.connect(database_url(data_dir)) as connection:
            assert connection.execute("SELECT x FROM last_words").fetchone() == (1,)


def test_the_stop_fits_into_the_drain_time() -> None:
    longest_s = sum(s for server in (Postgres, Valkey) for _, s in server.stop_signals)
    assert longest_s <= DRAIN_S
