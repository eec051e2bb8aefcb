"""The data directory: its lock, its log files, its permissions."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import exit_codes
from tests.tools.embedded.servers import ask_postgres
from tools.embedded.directory import LOG_BYTES_MAX, DataDirectory, EmbeddedError
from tools.lab.harness.process import LoggedProcess


def test_a_second_instance_is_refused_in_one_line(data_dir: Path) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as first:
        first.event("embedded_services_ready")
        with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as second:
            assert second.wait() == exit_codes.UNAVAILABLE
            errors = [line for line in second.lines if line.startswith("error: ")]
            assert len(errors) == 1
            assert f"pid {first.pid}" in errors[0]
        assert ask_postgres(data_dir) == 42


def test_a_large_log_is_rotated(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    path = directory.log_file("valkey")
    path.write_bytes(bytes(LOG_BYTES_MAX))
    assert directory.log_file("valkey") == path and path.exists()
    path.write_bytes(bytes(LOG_BYTES_MAX + 1))
    assert directory.log_file("valkey") == path and not path.exists()
    assert path.with_suffix(".log.1").stat().st_size == LOG_BYTES_MAX + 1


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match="DATA_DIR"):
        DataDirectory(tmp_path / "file" / "data").open()


def test_a_socket_directory_of_another_kind_is_refused(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.sockets.parent.mkdir(parents=True, exist_ok=True)
    directory.sockets.symlink_to("/")
    try:
        with pytest.raises(EmbeddedError, match="not a directory of this user"):
            directory.open()
    finally:
        directory.sockets.unlink()
