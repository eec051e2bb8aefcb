from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tools.lab.loadtest.samples import Sample, Samples


def test_a_sample_sums_usage_by_kind(tmp_path: Path) -> None:
    (tmp_path / "gateway.py").write_text("import sys\nprint(flush=True)\nsys.stdin.read()\n")
    command = [sys.executable, "-m", "gateway"]
    with ExitStack() as running:
        processes = [
            running.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
                )
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None and process.stdout.readline()
        samples = Samples("http://127.0.0.1:9", lambda: [psutil.Process(p.pid) for p in processes])
        both = samples.take()
        del processes[1:]
        one = samples.take()
        assert both.rss_mb["gateway"] > 1.5 * one.rss_mb["gateway"]
    assert both.descriptors["gateway"] == 2 * one.descriptors["gateway"]
    assert set(both.cpu_s) == {"gateway"} and both.queue == {} and both.admission == ""
    assert both.yardstick_us > 0
    assert samples.taken == [both, one]


def test_cores_and_memory_over_samples(tmp_path: Path) -> None:
    samples = Samples("http://127.0.0.1:9")
    assert samples.cores_used() == {}
    samples.taken = [
        Sample(
            0.0, {"gateway": 1.0}, {"gateway": 50}, {"gateway": 30}, {"gateway": 9}, {"queued": 3}
        ),
        Sample(10.0, {"gateway": 6.0, "broker": 1.0}, {"gateway": 40}, {}, {"gateway": 9}, {}),
    ]
    assert samples.cpu_s_used() == {"gateway": 5.0, "broker": 1.0}
    assert samples.cores_used() == {"gateway": 0.5, "broker": 0.1}
    assert samples.rss_mb_max() == {"gateway": 50}
    assert samples.queue_max("queued") == 3
    samples.write(tmp_path / "s.jsonl")
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    assert [json.loads(line)["at_s"] for line in lines] == [0.0, 10.0]


def test_processor_time_of_restarted_processes_adds_up() -> None:
    samples = Samples("")
    samples.taken = [
        Sample(at_s, {"gateway": cpu_s}, {}, {}, {}, {})
        for at_s, cpu_s in ((0.0, 1.0), (10.0, 6.0), (11.0, 0.5), (20.0, 3.0))
    ]
    assert samples.cpu_s_used() == {"gateway": 7.5}


@pytest.mark.parametrize(
    ("looks", "closed_s"),
    [
        (["open", "", "open"], None),
        (["open", "overloaded", "open", "no_worker", "", "open", "open"], (1.0, 5.0)),
        (["overloaded", "open", "overloaded"], (0.0, None)),
    ],
)
def test_when_admission_was_closed(looks: list[str], closed_s: object) -> None:
    samples = Samples("http://127.0.0.1:9")
    samples.taken = [
        Sample(float(at), {}, {}, {}, {}, {}, admission) for at, admission in enumerate(looks)
    ]
    assert samples.closed_s() == closed_s
