from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import tomllib

import prometheus_client
import pytest
import structlog

from runtime import metrics
from tests.test_tidy import ROOT

SERVE = """
import sys, urllib.request
import prometheus_client
from runtime import metrics
prometheus_client.Counter("words", "Words heard.").inc()
port = metrics.serve("broker", int(sys.argv[1]), "127.0.0.1")
print("port", port)
print(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
"""


def test_series_of_values_that_are_gone_are_removed() -> None:
    registry = prometheus_client.CollectorRegistry()
    gauge = prometheus_client.Gauge("speed", "Speed.", ["model"], registry=registry)
    for model in ("a", "b"):
        gauge.labels(model).set(1)
    metrics.keep_only(gauge, {"b"})
    found = {model: registry.get_sample_value("speed", {"model": model}) for model in ("a", "b")}
    assert found == {"a": None, "b": 1}


def served(first_port: int) -> str:
    # In a separate process, with which the server's thread ends.
    shown = subprocess.run(
        [sys.executable, "-c", SERVE, str(first_port)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ".", "no_proxy": "*"},
    )
    return shown.stdout


def test_metrics_and_build_info_are_served_on_loopback(unused_tcp_port: int) -> None:
    shown = served(unused_tcp_port)
    assert f"port {unused_tcp_port}" in shown
    assert "words_total 1.0" in shown
    assert 'asr_build_info{process="broker"' in shown
    assert f'version="{metrics.VERSION}"' in shown


def test_a_second_process_takes_the_next_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        assert f"port {first}\n" not in served(first)


def test_port_0_disables_the_endpoint() -> None:
    assert metrics.serve("broker", 0, "127.0.0.1") is None


def test_the_process_runs_without_a_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setitem(metrics.INSTANCES_MAX, "broker", 1)
        assert metrics.serve("broker", taken.getsockname()[1], "127.0.0.1") is None


def test_port_ranges_do_not_overlap() -> None:
    ranges = sorted(
        (start, start + metrics.INSTANCES_MAX[name]) for name, start in metrics.PORT_OFFSETS.items()
    )
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == metrics.VERSION


def test_a_name_without_an_address_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[int] = []

    def resolve(_host: str, port: int, **_options: object) -> list[object]:
        ports.append(port)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with structlog.testing.capture_logs() as logs:
        assert metrics.serve("asr_worker", 9_700, "nosuch.example") is None
    assert ports == [9_740]
    assert [(line["event"], line["reason"]) for line in logs] == [
        ("no_metrics_port", "Name or service not known")
    ]
