"""``asr keys``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wire import keys


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.cli.keys", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_keys_are_generated_once(tmp_path: Path) -> None:
    made = run(tmp_path / "keys")
    assert made.returncode == 0
    assert keys.read(tmp_path / "keys", "broker")
    assert all(f"{role}.secret" in made.stdout.replace("\n", "") for role in keys.ROLES)
    again = run(tmp_path / "keys")
    assert again.returncode == 1 and "exists" in again.stdout.replace("\n", " ")
