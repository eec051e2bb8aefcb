"""``honcho start`` with the project's own Procfile and embedded services."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runtime.settings import DatabaseSettings
from tests.integration.speech import say, spoken
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import ROOT, inherited
from tools.lab.harness.stack import wait_until

END_TIMEOUT_S = 60


class Honcho:
    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}/ws/asr"
        self.data_dir = directory / "data"
        self.log = directory / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "honcho", "start", "-c", "gateway=2,asr_worker=2"],
                cwd=ROOT,
                env={
                    **inherited(),
                    "PORT": str(self.port),
                    "DATA_DIR": str(self.data_dir),
                    "BROKER_FRONTEND": f"ipc://{directory}/front",
                    "BROKER_BACKEND": f"ipc://{directory}/back",
                    "BROKER_EVENTS": f"ipc://{directory}/events",
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str) -> dict[str, object]:
        """The JSON answer, empty when there is none yet."""
        try:
            url = f"http://127.0.0.1:{self.port}{path}"
            with urllib.request.urlopen(url, timeout=10) as response:
                answer: dict[str, object] = json.load(response)
                return answer
        except OSError:
            return {}

    def survivors(self) -> list[str]:
        """Processes that still run with this stack's data directory."""
        marker = f"DATA_DIR={self.data_dir}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if marker in environ.read_bytes().split(b"\0"):
                    name = (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(name.decode())
            except OSError:
                continue  # It ended meanwhile, or is not ours to read.
        return found


@pytest.fixture(scope="module")
def honcho() -> Iterator[Honcho]:
    with tempfile.TemporaryDirectory(prefix="asr-honcho-") as directory:
        running = Honcho(Path(directory))
        try:
            wait_until(
                lambda: running.get("/api/v1/health").get("workers_ready") == 2, "two workers"
            )
            yield running
        finally:
            running.process.send_signal(signal.SIGINT)
            try:
                running.process.wait(END_TIMEOUT_S)
            finally:
                running.process.kill()
                running.process.wait()
        assert running.survivors() == []


@pytest.mark.timeout(240)
async def test_two_gateways_and_two_workers_share_the_work(honcho: Honcho) -> None:
    audios = [spoken(5_000 + number, digits=(8, 12)) for number in range(24)]

    await asyncio.gather(*(say(honcho.url, audio) for audio in audios))
    database = DatabaseSettings(data_dir=honcho.data_dir, database_url=None, db_host=None)
    with psycopg.connect(database.database_address()) as connection:
        workers = connection.execute("SELECT DISTINCT worker_id FROM asr_segments").fetchall()
    assert len(workers) == 2
    started: dict[object, object] = {}
    for _ in range(200):
        stats = await asyncio.to_thread(honcho.get, "/api/v1/stats")
        started[stats["gateway_id"]] = stats["sessions_started"]
        if len(started) == 2:
            break
    assert len(started) == 2, "the kernel spreads connections over both gateways"
    assert all(isinstance(count, int) and count > 0 for count in started.values())


async def test_a_crashed_process_is_restarted_by_its_own_line(honcho: Honcho) -> None:
    def broker_pids() -> list[int]:
        marker = f"DATA_DIR={honcho.data_dir}".encode()
        found = []
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = cmdline.read_bytes().split(b"\0")
                environ = (cmdline.parent / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[-3:-1] == [b"-m", b"broker"] and marker in environ:
                found.append(int(cmdline.parent.name))
        return found

    (pid,) = broker_pids()
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: broker_pids() not in ([], [pid]), "a new broker")
    await asyncio.sleep(1.5)  # Its predecessor's last report is forgotten by now.
    await asyncio.to_thread(
        wait_until,
        lambda: honcho.get("/api/v1/health").get("workers_ready") == 2,
        "its workers",
    )
    await say(honcho.url, spoken(5_100))
    assert honcho.process.poll() is None
