"""PostgreSQL behind PgBouncer in transaction mode: each transaction may get another connection."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from persistence.reads import SessionReader
from persistence.writer import Writer
from tests.persistence import sent
from tools.lab.harness.ports import free_port
from wire.records import DEFAULT_TENANT

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
WAIT_S = 30.0
SERVER_CONNECTIONS = 3
AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
WITH_ACCESS = ("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override")


@pytest.fixture
def pooled(database: str, tmp_path: Path) -> Iterator[str]:
    """URL of ``database`` through PgBouncer, which has fewer connections than its clients."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed")
    server = conninfo_to_dict(database)
    port = free_port()
    config = tmp_path / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={server['host']} port={server.get('port', 5432)}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\n"
    )
    for path in (config, *list(config.parents)[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    as_user = (*AS_NOBODY, *WITH_ACCESS, "--") if os.geteuid() == 0 else ()
    config.write_text(config.read_text().replace("* = ", f"* = user={server['user']} "))
    process = subprocess.Popen([*as_user, PGBOUNCER, "-q", str(config)])
    try:
        url = f"postgresql://{server['user']}@127.0.0.1:{port}/{server['dbname']}"
        deadline_s = time.monotonic() + WAIT_S
        while True:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None and time.monotonic() < deadline_s
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(WAIT_S)


def write(writer: Writer, number: int) -> None:
    bodies = (sent.started(), sent.finished())
    writer.submit(tuple(sent.entry(body, f"s{number}") for body in bodies))
    deadline_s = time.monotonic() + WAIT_S
    while writer.committed() is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


async def test_writes_and_parallel_reads(pooled: str) -> None:
    writer = Writer(pooled, write_timeout_s=WAIT_S, lost_after_s=3_600, retention_days=0)
    writer.start()
    reader = SessionReader(pooled)
    await reader.open()
    try:
        for number in range(20):
            writing = asyncio.to_thread(write, writer, number)
            reads = (
                [reader.session(f"s{number - 1}", DEFAULT_TENANT) for _ in range(9)]
                if number
                else []
            )
            await asyncio.gather(writing, *reads)
        assert await reader.status("s19", DEFAULT_TENANT) is not None
    finally:
        await reader.close()
        writer.stop(1.0)
