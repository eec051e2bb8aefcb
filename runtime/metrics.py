"""What Prometheus is told of every process: a port of its own, and what runs there.

The gateway shows its metrics on its HTTP port too, but several gateways share that one, and the
kernel picks which of them answers a scrape. So each process of a host serves its own port.
"""

from __future__ import annotations

import platform
from typing import Final

import prometheus_client
import structlog
from prometheus_client import Counter, Gauge

VERSION: Final = "0.1.0"
"""As in pyproject.toml; the project runs from its checkout, without installed metadata."""

PORT_OFFSETS: Final = {"broker": 0, "persistence": 10, "gateway": 20, "asr_worker": 40}
"""From METRICS_PORT; instances take the next free one, so a scraper's targets can be listed."""
INSTANCES_MAX = {"broker": 10, "persistence": 10, "gateway": 20, "asr_worker": 60}
"""Processes of a kind on one host with metrics; a further one serves none and logs so."""

SPANS = Counter("asr_trace_spans_total", "Spans for the trace collector, by outcome", ["outcome"])
for _outcome in ("sent", "failed", "dropped"):
    SPANS.labels(_outcome)
BUILD_INFO = Gauge("asr_build_info", "Always 1: what runs here", ["process", "version", "python"])


def serve(process: str, first_port: int) -> int | None:
    """Serve ``/metrics`` of this process on loopback, in a daemon thread; returns its port.

    ``first_port`` is the host's METRICS_PORT, 0 for none. No free port is logged and the process
    goes on: being measured is not worth failing for.
    """
    # When a series began is told as a series of its own, which doubles their number for nothing.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    BUILD_INFO.labels(process, VERSION, platform.python_version()).set(1)
    if first_port == 0:
        return None
    log = structlog.get_logger()
    start = first_port + PORT_OFFSETS[process]
    for port in range(start, start + INSTANCES_MAX[process]):
        try:
            prometheus_client.start_http_server(port, addr="127.0.0.1")
        except OSError:
            continue
        log.info("metrics_served", port=port)
        return port
    log.warning("no_metrics_port", first=start, ports=INSTANCES_MAX[process])
    return None
