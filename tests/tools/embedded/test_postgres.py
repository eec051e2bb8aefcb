"""The PostgreSQL server: stale locks, interrupted starts, its user and its log."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runtime import exit_codes
from tests.tools.embedded.servers import ask_postgres, database_url, servers_of
from tools.lab.harness.process import LoggedProcess


def test_a_stale_lock_with_the_pid_of_another_process(data_dir: Path) -> None:
    """After a container restart, another process can have the pid of the old postmaster."""
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        process.kill()
    pid_file = data_dir / "postgres" / "postmaster.pid"
    old_pid = pid_file.read_text().partition("\n")[0]
    pid_file.write_text(pid_file.read_text().replace(old_pid, str(os.getpid()), 1))
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        assert all(e["event"] != "server_crashed" for e in process.events)


def test_an_interrupted_initdb_is_repeated(tmp_path: Path) -> None:
    unfinished = tmp_path / "postgres.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    with LoggedProcess("tools.embedded", DATA_DIR=str(tmp_path)) as process:
        process.event("embedded_services_ready")
        assert ask_postgres(tmp_path) == 42
    assert not unfinished.exists()


def test_data_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9.6\n")
    with LoggedProcess("tools.embedded", DATA_DIR=str(tmp_path)) as process:
        assert process.wait() == exit_codes.UNAVAILABLE
    assert "9.6" in process.lines[-1] or "9.6" in "".join(process.lines)


@pytest.mark.parametrize("name", ["postgres", "postgres/PG_VERSION", "postgres.log"])
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "postgres":
        path.touch()
    else:
        path.mkdir(parents=True)
    with LoggedProcess("tools.embedded", DATA_DIR=str(tmp_path)) as process:
        assert process.wait() == exit_codes.UNAVAILABLE
    (error,) = [line for line in process.lines if line.startswith("error: ")]
    assert str(path) in error
    assert "Traceback" not in "".join(process.lines)


@pytest.fixture
def roots_own_directory() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    directory = Path("/root") / f"embedded-test-{uuid.uuid4().hex}"
    directory.mkdir(mode=0o700)
    yield directory
    shutil.rmtree(directory)


def test_root_keeps_private_directories_private(roots_own_directory: Path) -> None:
    """PostgreSQL runs as another user, and no directory is opened to other users."""
    before = Path("/root").stat().st_mode
    data = roots_own_directory / "data"
    with LoggedProcess("tools.embedded", DATA_DIR=str(data)) as process:
        process.event("embedded_services_ready")
        assert ask_postgres(data) == 42
        assert servers_of(process)["postgres"].uids().effective != 0
    assert Path("/root").stat().st_mode == before
    assert roots_own_directory.stat().st_mode & 0o777 == 0o700


def test_the_log_contains_no_rows(data_dir: Path) -> None:
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
