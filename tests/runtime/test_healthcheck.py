"""The health check of a container, with the metrics of a real process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from runtime import exit_codes
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import wait_until

SERVES = """
import sys, time
from runtime import metrics

print(metrics.serve("broker", int(sys.argv[1]), sys.argv[2]), flush=True)
time.sleep(600)
"""


def check(process: str, port: int, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runtime.healthcheck", process, *more],
        env={"METRICS_PORT": str(port), "PATH": "/usr/bin", **env},
        capture_output=True,
        text=True,
    )


def await_health(process: str, port: int, *more: str, **env: str) -> None:
    """A process that a busy machine keeps still for longer than the check waits is not healthy."""
    wait_until(lambda: check(process, port, *more, **env).returncode == exit_codes.OK, "health", 60)


@contextlib.contextmanager
def broker(port: int, host: str) -> Iterator[None]:
    """A process that serves the metrics of a broker."""
    serves = subprocess.Popen(
        [sys.executable, "-c", SERVES, str(port), host], stdout=subprocess.PIPE
    )
    try:
        assert serves.stdout is not None and serves.stdout.readline()
        yield
    finally:
        serves.kill()
        serves.communicate()


def test_a_process_is_healthy_while_its_metrics_answer() -> None:
    port = free_port()
    with broker(port, "0.0.0.0"):
        await_health("broker", port)
        gone = check("persistence", port)
        assert gone.returncode == exit_codes.FAILURE and "/metrics" in gone.stderr
    assert check("broker", port).returncode == exit_codes.FAILURE


def test_a_process_is_ready_once_a_metric_has_a_value() -> None:
    port = free_port()
    with broker(port, "0.0.0.0"):
        for metric in ("asr_build_info", "process_open_fds"):
            await_health("broker", port, metric)
        for metric in ("asr_worker_model_info", "asr_build", "open_fds"):
            missing = check("broker", port, metric)
            assert missing.returncode == exit_codes.FAILURE and metric in missing.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2"])
def test_the_metrics_are_asked_where_they_listen_and_not_through_a_proxy(host: str) -> None:
    port = free_port()
    with broker(port, host):
        await_health("broker", port, METRICS_HOST=host, http_proxy="http://127.0.0.1:9")


@pytest.mark.parametrize(("process", "port"), [("proxy", 9700), ("broker", 0)])
def test_a_wrong_call_is_reported_in_one_line(process: str, port: int) -> None:
    reported = check(process, port)
    assert reported.returncode == exit_codes.CONFIG
    assert reported.stderr.startswith("error: ") and reported.stderr.count("\n") == 1
