from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.lab.loadtest.system import Sample, System, kind_of, write_samples


@pytest.mark.parametrize(
    "command, name, kind",
    [
        (["python", "-m", "gateway"], "python", "gateway"),
        (["python", "-m", "asr_worker.service"], "python", "asr_worker"),
        (["python", "-m", "asr_worker"], "python", None),
        (["python", "-m", "runtime.supervisor", "broker"], "python", None),
        (["/x/postgres", "-D", "y"], "postgres", "postgres"),
        (["vim", "broker"], "vim", None),
    ],
)
def test_kinds_of_processes(command: list[str], name: str, kind: str | None) -> None:
    assert kind_of(command, name) == kind


def test_looks_at_the_processes_below_one(tmp_path: Path) -> None:
    (tmp_path / "gateway.py").write_text("import sys\nsum(range(3_000_000))\nsys.stdin.read()\n")
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'gateway'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
    ) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        parent.stdout.readline()
        system = System("http://127.0.0.1:9", parent.pid)
        while not (sample := system.look()).cpu_s.get("gateway"):
            pass
        parent.stdin.close()
    assert sample.rss_mb["gateway"] > 1 and sample.queue == {}
    assert sample.yardstick_us > 0
    # A process has pages of its code as well as what it allocates.
    assert 0 < sample.anonymous_mb["gateway"] < sample.rss_mb["gateway"]
    assert set(sample.cpu_s) == {"gateway"}
    assert System("http://127.0.0.1:9", parent.pid).look().cpu_s == {}


def test_cores_and_memory_over_samples(tmp_path: Path) -> None:
    system = System("http://127.0.0.1:9", 1)
    assert system.cores_used() == {}
    system.samples = [
        Sample(
            0.0, {"gateway": 1.0}, {"gateway": 50}, {"gateway": 30}, {"gateway": 9}, {"queued": 3}
        ),
        Sample(10.0, {"gateway": 6.0, "broker": 1.0}, {"gateway": 40}, {}, {"gateway": 9}, {}),
    ]
    assert system.cores_used() == {"gateway": 0.5, "broker": 0.1}
    assert system.rss_mb_max() == {"gateway": 50}
    assert system.queue_max("queued") == 3
    write_samples(tmp_path / "s.jsonl", system.samples)
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    assert [json.loads(line)["at_s"] for line in lines] == [0.0, 10.0]


@pytest.mark.parametrize(
    ("looks", "closed_s"),
    [
        (["open", "", "open"], None),
        (["open", "overloaded", "open", "no_worker", "", "open", "open"], (1.0, 5.0)),
        (["overloaded", "open", "overloaded"], (0.0, None)),
    ],
)
def test_when_admission_was_closed(looks: list[str], closed_s: object) -> None:
    system = System("http://127.0.0.1:9", 1)
    system.samples = [
        Sample(float(at), {}, {}, {}, {}, {}, admission) for at, admission in enumerate(looks)
    ]
    assert system.closed_s() == closed_s
