"""Data directories of the embedded services."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime import exit_codes
from tools.lab.harness.process import LoggedProcess


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after a first run."""
    data_dir = tmp_path_factory.mktemp("made") / "data"
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir)) as process:
        process.event("embedded_services_ready")
        assert process.terminate() == exit_codes.OK
    return data_dir


@pytest.fixture
def data_dir(made_once: Path, tmp_path: Path) -> Path:
    """A copy of it, because a first run takes time."""
    subprocess.run(["cp", "-a", made_once, tmp_path / "data"], check=True)
    return tmp_path / "data"


@pytest.fixture(params=["short", "deep"])
def new_data_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "data" if request.param == "short" else tmp_path / ("d" * 120) / "data"
