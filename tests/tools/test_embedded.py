from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from runtime import exit_codes, settings
from runtime.lifecycle import DRAIN_S
from tests.conftest import EmbeddedServices
from tools.embedded.postgres import Postgres
from tools.embedded.valkey import Valkey
from tools.lab.harness.process import ROOT, LoggedProcess


def database_url(data_dir: Path) -> str:
    return settings.DatabaseSettings(data_dir=data_dir, db_host=None).database_address()


def servers_of(process: LoggedProcess) -> dict[str, psutil.Process]:
    return {child.name(): child for child in psutil.Process(process.pid).children()}


def of_server(name: str, event: dict[str, Any]) -> bool:
    return bool(event["server"] == name)


def ask_postgres(data_dir: Path) -> int:
    with psycopg.connect(database_url(data_dir)) as connection:
        row = connection.execute("SELECT 42").fetchone()
    assert row is not None
    return int(row[0])


def ask_valkey(data_dir: Path) -> bool:
    address = settings.RedisSettings(data_dir=data_dir, redis_url=None).redis_address()
    with redis.Redis.from_url(address) as client:
        return bool(client.ping())


def test_fixtures_give_real_servers(embedded_services: EmbeddedServices, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t (x integer)")
    with redis.Redis.from_url(embedded_services.redis_url) as client:
        assert client.ping()


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after a first run."""
    data_dir = tmp_path_factory.mktemp("made") / "data"
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        assert process.terminate() == exit_codes.OK
    return data_dir


@pytest.fixture
def data_dir(made_once: Path, tmp_path: Path) -> Path:
    """A copy of it, to spare the tests that are not about the first run its time."""
    subprocess.run(["cp", "-a", made_once, tmp_path / "data"], check=True)
    return tmp_path / "data"


@pytest.fixture(params=["short", "deep"])
def new_data_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "data" if request.param == "short" else tmp_path / ("d" * 120) / "data"


def test_serves_only_unix_sockets_and_leaves_no_process(new_data_dir: Path) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(new_data_dir)) as process:
        process.event("embedded_services_ready")
        assert ask_postgres(new_data_dir) == 42
        assert ask_valkey(new_data_dir)
        sockets = settings.embedded_socket_dir(new_data_dir)
        assert sockets.stat().st_mode & 0o777 == 0o700
        family = psutil.Process(process.pid).children(recursive=True)
        # Backends come and go; whoever listens is one of the two servers themselves.
        listening = [c for p in servers_of(process).values() for c in p.net_connections("inet")]
        assert process.terminate() == exit_codes.OK
    assert listening == []
    assert not any(p.is_running() for p in family)
    assert sockets.exists() == (sockets.parent == new_data_dir), "nothing stays in /tmp"


def test_second_instance_is_one_clear_line(data_dir: Path) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as first:
        first.event("embedded_services_ready")
        with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as second:
            assert second.wait() == exit_codes.UNAVAILABLE
            errors = [line for line in second.lines if line.startswith("error: ")]
            assert len(errors) == 1
            assert f"pid {first.pid}" in errors[0]
        assert ask_postgres(data_dir) == 42


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


def test_servers_die_with_a_killed_parent_and_start_again(data_dir: Path) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        family = list(servers_of(process).values())
        assert len(family) == 2
        process.kill()
        _gone, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
    assert (data_dir / "postgres" / "postmaster.pid").exists()
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        assert ask_postgres(data_dir) == 42


def test_lock_of_another_living_process_does_not_prevent_a_start(data_dir: Path) -> None:
    """After a container restart the old postmaster's pid belongs to someone else."""
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        process.kill()
    pid_file = data_dir / "postgres" / "postmaster.pid"
    old_pid = pid_file.read_text().partition("\n")[0]
    pid_file.write_text(pid_file.read_text().replace(old_pid, str(os.getpid()), 1))
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        assert all(e["event"] != "server_crashed" for e in process.events)


def test_interrupted_initdb_is_begun_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / "postgres.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    with LoggedProcess("tools.embedded", DATA_DIR=str(tmp_path)) as process:
        process.event("embedded_services_ready")
        assert ask_postgres(tmp_path) == 42
    assert not unfinished.exists()


def test_other_version_of_the_data_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9.6\n")
    with LoggedProcess("tools.embedded", DATA_DIR=str(tmp_path)) as process:
        assert process.wait() == exit_codes.UNAVAILABLE
    assert "9.6" in process.lines[-1] or "9.6" in "".join(process.lines)


@pytest.mark.parametrize("given", [{"DATABASE_URL": "postgresql://x/y"}, {"DB_HOST": "x"}])
def test_starts_only_what_no_url_names(tmp_path: Path, given: dict[str, str]) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(tmp_path), **given) as process:
        ready = process.event("embedded_services_ready")
        assert ready["servers"] == ["valkey"]
        assert list(servers_of(process)) == ["valkey-server"]


def test_with_both_urls_idles_until_sigterm(tmp_path: Path) -> None:
    given = {"DATABASE_URL": "postgresql://x/y", "REDIS_URL": "redis://x"}
    with LoggedProcess("tools.embedded", DATA_DIR=str(tmp_path), **given) as process:
        assert process.event("embedded_services_ready")["servers"] == []
        assert process.terminate() == exit_codes.OK
    assert list(tmp_path.iterdir()) == []


def test_clients_may_finish_while_the_database_stops(data_dir: Path) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        with psycopg.connect(database_url(data_dir)) as connection:
            connection.execute("CREATE TABLE last_words (x integer)")
            process.send_signal(signal.SIGTERM)
            connection.execute("INSERT INTO last_words VALUES (1)")
            connection.commit()
        assert process.wait() == exit_codes.OK
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        with psycopg.connect(database_url(data_dir)) as connection:
            assert connection.execute("SELECT x FROM last_words").fetchone() == (1,)


@pytest.fixture
def roots_own_directory() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    directory = Path("/root") / f"embedded-test-{uuid.uuid4().hex}"
    directory.mkdir(mode=0o700)
    yield directory
    shutil.rmtree(directory)


def test_root_keeps_private_directories_private(roots_own_directory: Path) -> None:
    """PostgreSQL runs as another user, yet nothing is opened to other users for it."""
    before = Path("/root").stat().st_mode
    data = roots_own_directory / "data"
    with LoggedProcess("tools.embedded", DATA_DIR=str(data)) as process:
        process.event("embedded_services_ready")
        assert ask_postgres(data) == 42
        assert servers_of(process)["postgres"].uids().effective != 0
    assert Path("/root").stat().st_mode == before
    assert roots_own_directory.stat().st_mode & 0o777 == 0o700


def test_ordinary_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests ran as an ordinary user already")
    nobody = 65534
    # Imported before the change of user, because this Python may itself lie in /root.
    script = f"""
import os
from tools.embedded.__main__ import main
os.setgroups([])
os.setresgid({nobody}, {nobody}, {nobody})
os.setresuid({nobody}, {nobody}, {nobody})
raise SystemExit(main())
"""
    data_dir = Path("/tmp") / f"embedded-test-{uuid.uuid4().hex}"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, nobody, nobody)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={"DATA_DIR": str(data_dir), "LOG_FORMAT": "json", "PATH": os.environ["PATH"]},
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stderr is not None
            seen = []
            for line in process.stderr:
                seen.append(line)
                if "embedded_services_ready" in line:
                    break
            assert "embedded_services_ready" in seen[-1], seen
            assert ask_postgres(data_dir) == 42
            process.terminate()
            process.communicate(timeout=30)
            assert process.returncode == exit_codes.OK
    finally:
        shutil.rmtree(data_dir)


def test_postgres_log_carries_no_rows(data_dir: Path) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        with (
            psycopg.connect(database_url(data_dir)) as connection,
            pytest.raises(psycopg.errors.CheckViolation),
        ):
            connection.execute("CREATE TABLE t (words text CHECK (length(words) < 3))")
            connection.execute("INSERT INTO t VALUES ('spoken secret')")
    log = (data_dir / "postgres.log").read_text()
    assert "check constraint" in log
    assert "secret" not in log


def test_stop_fits_into_the_drain_time() -> None:
    longest_s = sum(s for server in (Postgres, Valkey) for _, s in server.stop_signals)
    assert longest_s <= DRAIN_S
