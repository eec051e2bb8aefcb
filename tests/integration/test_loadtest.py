"""The load generator against the real system, as a person would run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.test_tidy import ROOT
from tools.lab.harness.stack import Stack, running_stack


def loadtest(stack: Stack, out: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    server = f"127.0.0.1:{stack.ports['gateway']}"
    command = [sys.executable, "-m", "tools.lab.loadtest", "--server", server, "--out", str(out)]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=150
    )
    found = json.loads((out / "loadtest_report.json").read_text(encoding="utf-8"))
    return done.returncode, found, done.stderr


def test_every_word_of_every_session_is_right(stack: Stack, tmp_path: Path) -> None:
    code, found, log = loadtest(
        stack,
        tmp_path,
        *("-c", "20", "-d", "6s", "--ramp", "2s", "--partials", "--processes", "2"),
        *("--patience", "60s"),
    )
    assert code == 0, log
    assert found["statuses"] == {"succeeded": 20} and found["texts_right"]
    assert found["stored"] == 20
    assert set(found["cores"]) >= {"gateway", "broker", "asr_worker", "persistence"}
    assert (tmp_path / "loadtest_report.png").stat().st_size > 10_000


def test_utterances_as_chunks_faster_than_real_time(stack: Stack, tmp_path: Path) -> None:
    code, found, log = loadtest(
        stack,
        tmp_path,
        *("-c", "6", "-d", "8s", "--ramp", "0s", "--session-mode", "chunk", "--speed", "4"),
        *("--chunk-ms", "2000", "--frames", "json"),
    )
    assert code == 0, log
    assert found["statuses"] == {"succeeded": 6} and found["models"] == ["demo"]


def test_refused_sessions_retry_and_are_counted_separately(
    redis_database: str, database: str, tmp_path: Path
) -> None:
    with running_stack(database, redis_database, MAX_CONNECTIONS="2") as small:
        small.start_all()
        code, found, log = loadtest(
            small, tmp_path, *("-c", "5", "-d", "3s", "--ramp", "0s", "--patience", "60s")
        )
    assert code == 0, log
    assert found["statuses"] == {"succeeded": 5}
    assert found["refusals"] >= 3
    assert found["admission_closed_s"] is not None
