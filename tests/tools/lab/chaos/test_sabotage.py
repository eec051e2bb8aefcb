from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools.lab.chaos import sabotage
from tools.ops.procfile import ROOT


@dataclass
class Job:
    pcm: bytes


def recognize(_recognizer: Any, jobs: list[Job]) -> list[str]:
    return [f"{len(job.pcm)} bytes" for job in jobs]


def test_without_an_order_nothing_is_changed(tmp_path: Path) -> None:
    assert sabotage.sabotaged(recognize, tmp_path)(None, [Job(bytes(8))]) == ["8 bytes"]


def test_one_process_takes_an_order(tmp_path: Path) -> None:
    order = tmp_path / "hang"
    assert not sabotage.take(order)
    order.write_text("")
    assert sabotage.take(order)
    assert not sabotage.take(order)


def test_the_first_holds_a_lasting_order(tmp_path: Path) -> None:
    order = tmp_path / "slow"
    assert not sabotage.is_ours(order)
    order.write_text("")
    assert sabotage.is_ours(order) and sabotage.is_ours(order)
    assert order.read_text() == str(os.getpid())
    order.write_text("another's")
    assert not sabotage.is_ours(order)


def test_hang_and_slowness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with_trouble = sabotage.sabotaged(recognize, tmp_path)
    (tmp_path / "hang").write_text("")
    assert with_trouble(None, [Job(b"")]) == ["0 bytes"]
    assert slept == [sabotage.HANG_S]
    (tmp_path / "slow").write_text("")
    with_trouble(None, [Job(b"")])
    assert len(slept) == 2 and slept[1] > 0


def test_poison_ends_the_process(tmp_path: Path) -> None:
    code = (
        "from types import SimpleNamespace as Job\nfrom pathlib import Path\n"
        "from tools.lab.chaos.sabotage import POISON, sabotaged\n"
        f"sabotaged(len, Path({str(tmp_path)!r}))(None, [Job(pcm=bytes(10) + POISON)])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert ended.returncode == -6


def test_only_workers_are_sabotaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from asr_worker import inference

    before = inference._recognize
    monkeypatch.setattr(inference, "_recognize", before)  # Restored at the end.
    sabotage.arm()
    monkeypatch.setenv(sabotage.DIRECTORY_VARIABLE, str(tmp_path))
    sabotage.arm()
    assert inference._recognize is before
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "asr_worker.service"])
    sabotage.arm()
    assert inference._recognize is not before
