from __future__ import annotations

import socket
import subprocess
import sys

from runtime import metrics

SERVE = """
import sys, urllib.request
import prometheus_client
from runtime import metrics
prometheus_client.Counter("words", "Words heard.").inc()
metrics.serve(int(sys.argv[1]))
print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics").read().decode())
"""


def test_metrics_are_served_on_loopback(unused_tcp_port: int) -> None:
    # In a process of its own: the server's thread ends with it.
    shown = subprocess.run(
        [sys.executable, "-c", SERVE, str(unused_tcp_port)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ".", "no_proxy": "*"},
    )
    assert "words_total 1.0" in shown.stdout


def test_port_0_serves_nothing() -> None:
    metrics.serve(0)


def test_a_taken_port_is_no_reason_to_fail() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        metrics.serve(taken.getsockname()[1])
