"""``python -m tools.embedded``: which servers it starts, and as which user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from runtime import exit_codes
from runtime.run_directory import run_directory
from tests.conftest import EmbeddedServices
from tests.tools.embedded.servers import ask_postgres, ask_valkey, servers_of
from tools.lab.harness.process import ROOT, LoggedProcess


def test_the_fixtures_are_real_servers(embedded_services: EmbeddedServices, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t (x integer)")
    with redis.Redis.from_url(embedded_services.redis_url) as client:
        assert client.ping()


def test_servers_listen_on_unix_sockets_only_and_leave_no_process(new_data_dir: Path) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(new_data_dir)) as process:
        process.event("embedded_services_ready")
        assert ask_postgres(new_data_dir) == 42
        assert ask_valkey(new_data_dir)
        sockets = run_directory(new_data_dir)
        assert sockets.stat().st_mode & 0o777 == 0o700
        family = psutil.Process(process.pid).children(recursive=True)
        # Backends come and go; only the two servers listen.
        listening = [c for p in servers_of(process).values() for c in p.net_connections("inet")]
        assert process.terminate() == exit_codes.OK
    assert listening == []
    assert not any(p.is_running() for p in family)
    assert sockets.exists() == (sockets.parent == new_data_dir), "nothing stays in /tmp"


@pytest.mark.parametrize("given", [{"DATABASE_URL": "postgresql://x/y"}, {"DB_HOST": "x"}])
def test_a_server_named_by_a_setting_is_not_started(tmp_path: Path, given: dict[str, str]) -> None:
    with LoggedProcess("tools.embedded", DATA_DIR=str(tmp_path), **given) as process:
        ready = process.event("embedded_services_ready")
        assert ready["servers"] == ["valkey"]
        assert list(servers_of(process)) == ["valkey-server"]


def test_without_a_server_to_start_it_waits_for_sigterm(tmp_path: Path) -> None:
    given = {"DATABASE_URL": "postgresql://x/y", "REDIS_URL": "redis://x"}
    with LoggedProcess("tools.embedded", DATA_DIR=str(tmp_path), **given) as process:
        assert process.event("embedded_services_ready")["servers"] == []
        assert process.terminate() == exit_codes.OK
    assert list(tmp_path.iterdir()) == []


def test_it_runs_as_an_ordinary_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests ran as an ordinary user already")
    nobody = 65534
    # Imported before the change of user, because this Python may itself lie in /root. Python would
    # import the codec of host names when the first one is encoded.
    script = f"""
import encodings.idna
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
