"""Prometheus targets of one host."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tools.ops.scrape_targets import scrape_targets


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.ops.scrape_targets", *arguments]
    inherited = {k: v for k, v in os.environ.items() if k != "METRICS_PORT"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**inherited, **environment}
    )


def test_every_instance_has_a_target_with_the_job_of_its_kind() -> None:
    found = json.loads(run("gateway=2", "asr_worker=3", "broker=0", METRICS_PORT="9000").stdout)
    assert {group["labels"]["job"]: group["targets"] for group in found} == {
        "asr-broker": [],
        "asr-persistence": ["127.0.0.1:9010"],
        "asr-gateway": ["127.0.0.1:9020", "127.0.0.1:9021"],
        "asr-worker": ["127.0.0.1:9040", "127.0.0.1:9041", "127.0.0.1:9042"],
    }


@pytest.mark.parametrize("argument", ["gateway", "gateway=x", "gateway=-1", "gateway=21", "gate=1"])
def test_invalid_counts_are_refused(argument: str) -> None:
    refused = run(argument)
    assert refused.returncode == 2 and refused.stdout == ""
    assert "gate" in refused.stderr


def test_targets_of_different_kinds_do_not_overlap() -> None:
    groups = scrape_targets(
        9_700, {"broker": 10, "persistence": 10, "gateway": 20, "asr_worker": 60}
    )
    targets = [target for group in groups for target in group["targets"]]
    assert len(targets) == len(set(targets)) == 100
