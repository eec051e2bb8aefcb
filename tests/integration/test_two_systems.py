"""Two systems on one machine, started from two checkouts with PORT alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime import exit_codes
from tools.cli import self_check
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import ROOT, inherited

CODE = (*("asr_worker", "broker", "gateway", "persistence", "runtime", "tools", "wire"), "Procfile")
STOP_S_MAX = 30.0


class Served:
    """``asr serve`` in ``checkout`` on a free port. All other settings are the defaults."""

    def __init__(self, checkout: Path) -> None:
        self.port = free_port()
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.cli.serve"],
            cwd=checkout,
            env={
                **inherited(),
                "PYTHONPATH": str(checkout / "tools" / "client"),
                "PORT": str(self.port),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("Metrics"):
                return
        raise AssertionError("".join(self.lines[-50:]))

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=STOP_S_MAX)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            body: bytes = answer.read()
        return body.decode()

    def history(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.get("/api/v1/history"))
        return answer

    def sessions_started(self) -> float:
        families = {f.name: f for f in text_string_to_metric_families(self.get("/metrics"))}
        samples = families["asr_gateway_sessions"].samples
        return sum(s.value for s in samples if s.labels.get("event") == "started")


@pytest.fixture(scope="module")
def checkouts() -> Iterator[tuple[Path, Path]]:
    # Not tmp_path, which is too long for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="asr-two-") as directory:
        copies = Path(directory, "a"), Path(directory, "b")
        for copy in copies:
            copy.mkdir()
            for name in CODE:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, copy / name)  # With compiled modules, which fit.
                else:
                    shutil.copy(source, copy)
        yield copies


def test_two_checkouts_run_side_by_side_with_port_alone(checkouts: tuple[Path, Path]) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        systems = []
        for checkout in checkouts:
            systems.append(Served(checkout))
            stack.callback(systems[-1].stop)
        list(pool.map(Served.wait_until_ready, systems))
        # Each has transcribed the recordings of its self-check, and no other.
        count = len(self_check.DIGITS)
        histories = [system.history() for system in systems]
        assert [history["total"] for history in histories] == [count, count]
        ids = [{s["session_id"] for s in history["records"]} for history in histories]
        assert not ids[0] & ids[1]
        assert [system.sessions_started() for system in systems] == [count, count]
        for system, checkout in zip(systems, checkouts, strict=True):
            listening = [
                connection.laddr.port
                for process in psutil.Process(system.process.pid).children(recursive=True)
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            ]
            assert set(listening) == {system.port}, "everything else is in DATA_DIR"
            assert (checkout / ".data" / "run").stat().st_mode & 0o777 == 0o700
        _assert_the_same_data_is_refused(checkouts[0])


def _assert_the_same_data_is_refused(checkout: Path) -> None:
    third = Served(checkout)
    said, _ = third.process.communicate(timeout=60)
    assert third.process.returncode == exit_codes.UNAVAILABLE
    assert said.startswith("error: another system runs on DATA_DIR .data (pid ")
    assert f"PORT={third.port} DATA_DIR=.data-{third.port} make run" in said
    assert said.count("\n") == 1
