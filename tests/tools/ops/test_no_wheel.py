"""``pip install .`` refuses, and says what to do instead."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.ops import no_wheel

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("how", [[], ["--editable"]], ids=["wheel", "editable"])
def test_pip_refuses_in_one_line(how: list[str], tmp_path: Path) -> None:
    # Only the files that pip reads, instead of a copy of the whole checkout.
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tools" / "ops").mkdir(parents=True)
    shutil.copy(ROOT / "tools/ops/no_wheel.py", tmp_path / "tools" / "ops")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index"]
    command += ["--target", str(tmp_path / "target"), *how, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    shown = ended.stdout + ended.stderr
    assert shown.count(no_wheel.MESSAGE) == 1
    assert "Traceback" not in shown
    assert not (tmp_path / "target").exists()
