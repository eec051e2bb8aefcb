"""The command ``asr``: which commands it has, and where."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import asr_client
from tools.cli.commands import COMMANDS

PACKAGE = Path(asr_client.__file__).parent


def asr(*arguments: str, path: Path = PACKAGE.parent) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asr_client", *arguments],
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_in_a_checkout_it_has_the_servers_commands() -> None:
    shown = asr("--help")
    assert shown.returncode == 0
    assert all(f"  {name} " in shown.stdout for name in ["transcribe", *COMMANDS])


def test_a_wheel_has_transcribe_only(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "site-packages" / "asr_client")
    installed = tmp_path / "site-packages"
    assert "  transcribe " in asr("--help", path=installed).stdout
    refused = asr("serve", path=installed)
    assert refused.returncode == 2 and "No such command" in refused.stderr


@pytest.mark.parametrize("name", ["transcribe", *COMMANDS])
def test_every_command_has_help_under_its_name(name: str) -> None:
    shown = asr(name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert f"asr {name}" in shown.stdout
