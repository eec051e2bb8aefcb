"""PostgreSQL on other hosts: encrypted, over IPv6, and with a replica that takes over."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from persistence.reads import SessionReader
from persistence.writer import Writer
from tests import certificates
from tests.persistence import sent
from tools.lab.harness.ports import free_port
from tools.lab.harness.servers import PostgresServer, installed_postgres
from tools.lab.harness.stack import wait_until
from wire.records import DEFAULT_TENANT

HOST = "127.0.0.1"
WAIT_S = 60.0


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Written:
    """A writer that lives on while servers change."""

    def __init__(self, conninfo: str) -> None:
        self.writer = Writer(conninfo, write_timeout_s=10.0, lost_after_s=3_600, retention_days=0)
        self.writer.start()

    def session(self, session_id: str) -> None:
        bodies = (sent.started(), sent.finished())
        batch = tuple(sent.entry(body, session_id) for body in bodies)
        self.writer.submit(batch)
        deadline_s = time.monotonic() + WAIT_S
        while self.writer.committed() is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def shown(conninfo: str, session_id: str) -> str | None:
    async def read() -> str | None:
        reader = SessionReader(conninfo)
        await reader.open()
        try:
            async with asyncio.timeout(WAIT_S):
                while not await reader.ping():
                    await asyncio.sleep(0.05)
            return await reader.status(session_id, DEFAULT_TENANT)
        finally:
            await reader.close()

    return asyncio.run(read())


def write_and_read(conninfo: str, started: ExitStack) -> None:
    written = Written(conninfo)
    started.callback(written.writer.stop, 1.0)
    written.session("s1")
    assert shown(conninfo, "s1") == "completed"


def test_tls_with_a_checked_certificate(started: ExitStack, tmp_path: Path) -> None:
    programs = installed_postgres()
    if programs is None:
        pytest.skip("no PostgreSQL with TLS is installed; that of the wheel has none")
    made = certificates.make(tmp_path)
    if os.geteuid() == 0:
        shutil.chown(made.key, "nobody")
    server = PostgresServer(
        tmp_path / "server",
        HOST,
        free_port(),
        programs=programs,
        access="hostssl all all all trust\n",
        ssl="on",
        ssl_cert_file=str(made.certificate),
        ssl_key_file=str(made.key),
    )
    started.enter_context(server)
    checked = f"{server.url}?sslmode=verify-full&sslrootcert={made.certificate}"
    write_and_read(checked, started)
    with psycopg.connect(checked) as connection:
        assert connection.pgconn.ssl_in_use

    other = tmp_path / "other"
    other.mkdir()
    unknown = certificates.make(other).certificate
    for wrong, reason in (
        (f"{server.url}?sslmode=verify-full&sslrootcert={unknown}", "certificate verify failed"),
        (f"{server.url}?sslmode=disable", "no encryption"),
    ):
        with capture_logs() as logs:
            writer = Writer(wrong, write_timeout_s=10.0, lost_after_s=3_600, retention_days=0)
            writer.start()
            wait_until(functools.partial(bool, logs), "a line about the connection", WAIT_S)
            writer.stop(1.0)
        assert logs[0]["event"] == "database_unavailable" and reason in logs[0]["reason"]


def test_ipv6(started: ExitStack, tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, "::1", free_port())
    write_and_read(started.enter_context(server).url, started)


def test_a_replica_takes_over(started: ExitStack, tmp_path: Path) -> None:
    first = PostgresServer(tmp_path / "1", HOST, free_port(), wal_level="replica")
    started.enter_context(first)
    second = PostgresServer(tmp_path / "2", HOST, free_port(), copy_of=first)
    started.enter_context(second)
    hosts = f"{HOST}:{first.port},{HOST}:{second.port}"
    conninfo = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
    written = Written(conninfo)
    started.callback(written.writer.stop, 1.0)
    written.session("before")
    wait_until(lambda: _has(second, "before"), "the replica has the session", WAIT_S)

    first.stop(signal.SIGQUIT)
    second.promote()
    written.session("after")
    assert shown(conninfo, "before") == shown(conninfo, "after") == "completed"


def _has(server: PostgresServer, session_id: str) -> bool:
    with psycopg.connect(server.url) as connection:
        query = "SELECT to_regclass('asr_sessions') IS NOT NULL"
        (exists,) = connection.execute(query).fetchone() or (False,)
        if not exists:
            return False
        found = connection.execute("SELECT 1 FROM asr_sessions WHERE id = %s", [session_id])
        return found.fetchone() is not None
