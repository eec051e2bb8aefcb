"""The README's commands, as they stand there, against a running system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.lab.harness.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(
    r"^<!-- run -->\n```(sh|python)\n(.*?)^```$",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


def spoken(output: str) -> list[str]:
    """The words of an output, without numbers and times."""
    lines = (line for line in output.splitlines() if " --> " not in line)
    return [word for word in " ".join(lines).split() if not word.isascii() or not word.isdigit()]


def test_there_are_commands() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python"}


@pytest.mark.parametrize(
    "language, block", BLOCKS, ids=[f"{n}-{b.split()[0]}" for n, (_, b) in enumerate(BLOCKS)]
)
def test_commands(language: str, block: str, stack: Stack) -> None:
    address = f"127.0.0.1:{stack.ports['gateway']}"
    text = block.replace("127.0.0.1:8080", address)
    # The interpreter that runs this test need not be in .venv.
    text = text.replace(". .venv/bin/activate\n", "")
    command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shown = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **stack.environment, "PATH": path, "ASR_URL": stack.url()},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip()
    for sample in re.findall(r"tools/samples/\w+\.wav", block):
        said = (ROOT / sample).with_suffix(".txt").read_text(encoding="utf-8").strip()
        assert said in " ".join(spoken(shown.stdout))
