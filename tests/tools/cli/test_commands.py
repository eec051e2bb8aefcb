"""The server's commands of ``asr``."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import typer

from tools.cli.commands import COMMANDS


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_every_command_is_the_app_of_its_module(module: str) -> None:
    assert isinstance(importlib.import_module(module).app, typer.Typer)


def test_a_command_is_imported_when_it_is_run() -> None:
    program = (
        "import sys, typer; from tools.cli import commands; "
        "commands.add_to(typer.Typer()); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not {module for module, _ in COMMANDS.values()} & set(loaded.stdout.decode().split())
