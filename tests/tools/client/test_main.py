"""The command ``asr``: which commands it has, and where."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    project = directory / "client"
    shutil.copytree(PACKAGE.parent, project, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(directory), str(project)], check=True)
    (path,) = directory.glob("*.whl")
    return zipfile.ZipFile(path)


def test_a_wheel_has_transcribe_only(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    assert "  transcribe " in asr("--help", path=tmp_path).stdout
    refused = asr("serve", path=tmp_path)
    assert refused.returncode == 2 and "No such command" in refused.stderr


def test_a_wheel_holds_one_package_and_needs_few(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"asr_client"}
    assert "asr_client/py.typed" in names
    (metadata,) = (name for name in names if name.endswith("/METADATA"))
    needed = re.findall(r"^Requires-Dist: ([a-z]+)", wheel.read(metadata).decode(), re.MULTILINE)
    assert set(needed) == {"websockets", "typer", "rich", "av"}


@pytest.mark.parametrize("name", ["transcribe", *COMMANDS])
def test_every_command_has_help_under_its_name(name: str) -> None:
    shown = asr(name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert f"asr {name}" in shown.stdout
