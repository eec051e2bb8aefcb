"""A load test on a system of its own is stopped while sessions speak."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

STOP_S_MAX = 30.0


def running(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tools.lab.loadtest",
            "-c",
            "2",
            "-d",
            "10m",
            "--out",
            str(directory),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "2 speaking" in line:
            return process
    raise AssertionError(f"it ended with {process.wait()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_report_and_no_process_is_left(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = running(tmp_path)
    descendants = psutil.Process(process.pid).children(recursive=True)
    assert len(descendants) > 5, "a whole system and the generator"
    process.send_signal(number)
    _, errors = process.communicate(timeout=STOP_S_MAX)
    assert process.returncode == 1
    assert "stopped" in errors
    assert (tmp_path / "loadtest_report.md").is_file()
    _, left = psutil.wait_procs(descendants, timeout=STOP_S_MAX)
    assert not left
