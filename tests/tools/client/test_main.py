"""The command ``asr``: which commands it has, and where."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import typer

import asr_client
from asr_client.__main__ import SERVER_COMMANDS

PACKAGE = Path(asr_client.__file__).parent


def asr(*arguments: str, path: Path = PACKAGE.parent) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asr_client", *arguments],
        cwd=path,
        # A checkout on PYTHONPATH would have the server's packages: "serve" would start a system.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_all_commands_and_imports_none_of_the_servers() -> None:
    program = (
        "import sys; from asr_client.__main__ import main\n"
        "try: main()\n"
        "finally: print(*sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program, "--help"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    names = ["transcribe", "history", *SERVER_COMMANDS]
    assert all(f"  {name} " in shown.stdout for name in names)
    assert not {"torch", "zmq", "tools", "gateway"} & set(shown.stdout.splitlines()[-1].split())


def test_the_version_is_that_of_the_package() -> None:
    declared = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["version"]
    assert asr("--version").stdout == f"asr {declared}\n"


@pytest.mark.parametrize("module", [module for module, _ in SERVER_COMMANDS.values()])
def test_every_server_command_is_the_app_of_its_module(module: str) -> None:
    assert isinstance(importlib.import_module(module).app, typer.Typer)


@pytest.mark.parametrize(
    "typed, offered",
    [("mod", "models"), ("models pu", "pull"), ("transcribe --hotw", "--hotwords")],
)
def test_the_shell_completes_commands_and_options(typed: str, offered: str) -> None:
    words = f"asr {typed}"
    completion = {
        "_ASR_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    shown = subprocess.run(
        [sys.executable, "-m", "asr_client"],
        env={**os.environ, **completion},
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert offered in shown.stdout.split(), shown.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    project = directory / "client"
    shutil.copytree(PACKAGE.parent, project, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(directory), str(project)], check=True)
    (path,) = directory.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.parametrize("name", SERVER_COMMANDS)
def test_of_a_wheel_the_servers_commands_say_what_they_need(
    wheel: zipfile.ZipFile, tmp_path: Path, name: str
) -> None:
    wheel.extractall(tmp_path)
    refused = asr(name, path=tmp_path)
    assert refused.returncode == 1
    assert f"asr {name} needs the server's packages" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error, reported",
    [
        ("ModuleNotFoundError('no', name='zmq')", "zmq is not installed"),
        ("ImportError('x.so: failed to map segment from shared object')", "failed to map segment"),
    ],
)
def test_a_server_command_that_cannot_be_loaded_is_reported_in_one_line(
    wheel: zipfile.ZipFile, tmp_path: Path, error: str, reported: str
) -> None:
    package = tmp_path / "tools" / "client"
    wheel.extractall(package)
    module = tmp_path / "tools" / "cli" / "serve.py"
    module.parent.mkdir()
    module.write_text(f"raise {error}\n", encoding="utf-8")
    refused = asr("serve", path=package)
    assert refused.returncode == 1
    assert reported in refused.stderr and refused.stderr.count("\n") == 1


def test_a_wheel_holds_one_package_and_its_command_and_needs_few(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    held = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert held == {"asr_client", "asr_command.py"}
    assert "asr_client/py.typed" in names
    (metadata,) = (name for name in names if name.endswith("/METADATA"))
    needed = re.findall(r"^Requires-Dist: ([a-z]+)", wheel.read(metadata).decode(), re.MULTILINE)
    assert set(needed) == {"websockets", "typer", "rich", "av"}


@pytest.mark.parametrize("name", ["transcribe", "history", *SERVER_COMMANDS])
def test_every_command_has_help_under_its_name(name: str) -> None:
    shown = asr(name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert f"asr {name}" in shown.stdout
    assert "Example" in shown.stdout or "Commands:" in shown.stdout
