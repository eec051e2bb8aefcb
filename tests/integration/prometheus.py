"""A Prometheus of its own that scrapes a system under test as deploy/prometheus has it, only more
often (Debian: apt-get install prometheus)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
import yaml  # type: ignore[import-untyped]

from runtime import lifecycle
from tests.test_tidy import ROOT
from tools.lab.harness.http import ask
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import wait_until
from tools.ops.scrape_targets import job_of

DEPLOYED: Final = ROOT / "deploy" / "prometheus"
INTERVAL: Final = "1s"
START_S_MAX: Final = 30.0
STOP_S_MAX: Final = 10.0


def program(name: str) -> str:
    """Path of ``prometheus`` or ``promtool``; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on PATH")
    return found


class Prometheus:
    """Use it as a context manager, on the thread that starts it."""

    def __init__(self, directory: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        config = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
        config["rule_files"] = [str(DEPLOYED / name) for name in config["rule_files"]]
        (discovery,) = config["scrape_configs"][0]["file_sd_configs"]
        discovery["refresh_interval"] = INTERVAL
        (self._targets,) = (self._directory / name for name in discovery["files"])
        file = self._directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        arguments = [
            f"--config.file={file}",
            f"--storage.tsdb.path={self._directory / 'series'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with (self._directory / "prometheus.log").open("wb") as log:
            self._child = subprocess.Popen(
                [program("prometheus"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lifecycle.die_with_parent,
            )
        wait_until(lambda: ask(f"{self.url}/-/ready").status == 200, "Prometheus", START_S_MAX)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child is not None
        self._child.terminate()
        try:
            self._child.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def scrape(self, ports: Mapping[str, Sequence[int]], **labels: str) -> None:
        """From now on scrape these ports, by kind of process; the series get ``labels``, too."""
        groups = [
            {
                "labels": {"job": job_of(kind), **labels},
                "targets": [f"127.0.0.1:{port}" for port in ports_of_kind],
            }
            for kind, ports_of_kind in ports.items()
        ]
        part = self._targets.with_suffix(".part")
        part.write_text(json.dumps(groups), encoding="utf-8")
        part.replace(self._targets)

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of the HTTP API.

        Raises:
            AssertionError: if it is an error.
        """
        answer = ask(f"{self.url}/api/v1/{path}?{urlencode(parameters)}")
        assert answer.status == 200 and answer.body["status"] == "success", answer.body
        return answer.body["data"]

    def values(self, query: str) -> list[float]:
        """Of each series of an instant vector."""
        found = self.get("query", query=query)
        assert found["resultType"] == "vector", found
        return [float(series["value"][1]) for series in found["result"]]
