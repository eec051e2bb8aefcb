"""Kinds of processes, and what they use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tools.lab.harness.usage import family, kind_of, of_kind, usage

MODULE = "import sys\nsum(range(3_000_000))\nprint(flush=True)\nsys.stdin.read()\n"
PARENT = (
    "import subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-m', 'gateway'], stdin=subprocess.PIPE)\n"
    "sys.stdin.read()\n"
)


@pytest.mark.parametrize(
    "command, name, kind",
    [
        (["python", "-m", "gateway"], "python", "gateway"),
        (["python", "-m", "asr_worker.service"], "python", "asr_worker"),
        (["python", "-m", "asr_worker"], "python", "worker_supervisor"),
        (["python", "-m", "runtime.supervisor", "broker"], "python", "supervisor"),
        (["python", "-m", "pytest"], "python", None),
        (["python", "-m"], "python", None),
        (["/x/postgres", "-D", "y"], "postgres", "postgres"),
        (["vim", "broker"], "vim", None),
    ],
)
def test_kinds_of_processes(command: list[str], name: str, kind: str | None) -> None:
    assert kind_of(command, name) == kind


def test_usage_of_a_family(tmp_path: Path) -> None:
    (tmp_path / "gateway.py").write_text(MODULE)
    command = [sys.executable, "-c", PARENT]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as parent:  # type: ignore[call-overload]
        parent.stdout.readline()
        members = family(parent.pid)
        (gateway,) = of_kind("gateway", members)
        assert [member.pid for member in members] == [parent.pid, gateway.pid]
        assert of_kind("broker", members) == []
        (used,) = usage(members)
        assert [each.kind for each in usage(members, other="other")] == ["other", "gateway"]
        parent.stdin.close()
    assert (used.pid, used.kind) == (gateway.pid, "gateway")
    assert used.cpu_s > 0 and used.descriptors >= 3 and 0 <= used.age_s < 60
    # A process has pages of its code as well as what it allocates.
    assert 0 < used.anonymous_mb < used.rss_mb
    psutil.wait_procs(members, timeout=10)
    assert family(parent.pid) == [] and of_kind("gateway", members) == []


def test_this_process_is_none_of_a_system() -> None:
    assert usage([psutil.Process(os.getpid())]) == []
