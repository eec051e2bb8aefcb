"""Requirements and pins of `make setup`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from packaging.utils import canonicalize_name

from tools.ops import requirements as r

ROOT = Path(__file__).parents[3]


def test_all_requirements_are_printed_development_tools_included() -> None:
    # As `make setup` calls it: nothing is installed yet, and no package path is set.
    printed = subprocess.run(
        [sys.executable, "-I", "-S", "tools/ops/requirements.py", "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert printed == r.requirements(ROOT / "pyproject.toml")
    names = {re.split("[<>=!~;]", line)[0] for line in printed}
    assert {"pyzmq", "psycopg[binary]", "pytest"} <= names


def test_packages_without_their_requirements_are_printed_apart() -> None:
    printed = subprocess.run(
        [sys.executable, "-I", "-S", "tools/ops/requirements.py", "--alone", "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert printed == r.alone(ROOT / "pyproject.toml")
    assert not set(printed) & set(r.requirements(ROOT / "pyproject.toml"))


def test_what_a_package_alone_requires_is_not_pinned() -> None:
    names = {line.partition("==")[0] for line in r.pins([], ["openai-whisper==20250625"])}
    assert names == {"openai-whisper"}


def test_pins_hold_direct_and_indirect_requirements() -> None:
    pinned = dict(line.split("==") for line in r.pins(["psycopg[binary]", "pytest-asyncio"]))
    assert {"psycopg", "psycopg-binary", "pytest", "pluggy"} <= pinned.keys()
    assert "psycopg-pool" not in pinned
    assert "torch" not in pinned


def test_no_pin_names_one_build() -> None:
    (torch,) = (line for line in r.pins(["torch"]) if line.startswith("torch=="))
    assert "+" not in torch


def test_the_file_is_what_pinning_writes(tmp_path: Path) -> None:
    written = tmp_path / "constraints.txt"
    subprocess.run(
        [sys.executable, "tools/ops/requirements.py", "--pin", str(written), "pyproject.toml"],
        cwd=ROOT,
        check=True,
    )

    def names(path: Path) -> list[str]:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line.partition("==")[0] for line in lines if not line.startswith("#")]

    kept = ROOT / "constraints.txt"
    # The packages of machines differ, such as CUDA libraries of torch; pinned ones are needed.
    assert set(names(kept)) <= set(names(written))
    assert names(kept) == sorted(canonicalize_name(name) for name in names(kept))
    assert kept.read_text(encoding="utf-8").startswith(r.PIN_HEADER)
