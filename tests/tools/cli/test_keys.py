"""``asr keys``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wire import keys


def run(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.cli.keys", str(directory), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_keys_are_generated_once(tmp_path: Path) -> None:
    made = run(tmp_path / "keys")
    assert made.returncode == 0
    assert keys.read(tmp_path / "keys", "broker")
    assert all(f"{role}.secret" in made.stdout.replace("\n", "") for role in keys.ROLES)
    again = run(tmp_path / "keys")
    assert again.returncode == 1 and "exists" in again.stderr and again.stderr.count("\n") == 1


def test_a_host_gets_a_key_of_its_own(tmp_path: Path) -> None:
    run(tmp_path)
    made = run(tmp_path, "--host", "gpu-1")
    assert made.returncode == 0 and "worker.d/gpu-1.public" in made.stdout.replace("\n", "")
    assert len(keys.read(tmp_path, "broker").allowed["worker"]) == 2
    assert run(tmp_path, "--host", "gpu-1").returncode == 1
    assert run(tmp_path, "--host", "../gpu-1").returncode == 1
    assert run(tmp_path, "--host", "gpu-1", "--role", "broker").returncode == 1
