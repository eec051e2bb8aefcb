"""Options of the command, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from tools.lab.fuzz import __main__ as command
from tools.lab.fuzz.run import Result


def test_a_running_gateway_needs_its_metrics() -> None:
    with pytest.raises(typer.BadParameter, match="metrics-port"):
        command.main(url="http://127.0.0.1:1")


def test_the_report_is_written(tmp_path: Path) -> None:
    command._report(Result(seed=1, bus=2, edge=3, seconds=4.0, sessions=5), tmp_path / "new")
    assert json.loads((tmp_path / "new" / "fuzz.json").read_text())["edge"] == 3
