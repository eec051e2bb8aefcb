"""Prometheus endpoint and metrics of every process. Each process of a host serves a port of its
own: several gateways share their HTTP port, and the kernel chooses which of them answers."""

from __future__ import annotations

import errno
import platform
from collections.abc import Container
from typing import Final

import prometheus_client
import structlog
from prometheus_client import Counter, Gauge

VERSION: Final = "0.1.0"
"""As in pyproject.toml. The project runs from its checkout, without installed metadata."""

PORT_OFFSETS: Final = {"broker": 0, "persistence": 10, "gateway": 20, "asr_worker": 40}
"""First port of each process type, from METRICS_PORT. Instances take the next free one."""
INSTANCES_MAX: Final = {"broker": 10, "persistence": 10, "gateway": 20, "asr_worker": 60}
"""Processes of a type with an endpoint on one host. Further ones log ``no_metrics_port``."""

SPANS = Counter("asr_trace_spans_total", "Spans for the trace collector, by outcome", ["outcome"])
for _outcome in ("sent", "failed", "dropped"):
    SPANS.labels(_outcome)
BUILD_INFO = Gauge(
    "asr_build_info",
    "Always 1; its labels describe the running process",
    ["process", "version", "python"],
)


def keep_only(gauge: Gauge, values: Container[str]) -> None:
    """Remove each series of ``gauge`` whose only label has a value that is not in ``values``."""
    (family,) = gauge.collect()
    for sample in family.samples:
        (value,) = sample.labels.values()
        if value not in values:
            gauge.remove(value)


def serve(process: str, first_port: int, host: str) -> int | None:
    """Serve ``/metrics`` of this process on ``host``, in a daemon thread, and return the port.
    ``first_port`` is METRICS_PORT, 0: no endpoint. Logs a warning if no port is free."""
    # A ``_created`` series for each series would double their number.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    BUILD_INFO.labels(process, VERSION, platform.python_version()).set(1)
    if first_port == 0:
        return None
    log = structlog.get_logger()
    start, reason = first_port + PORT_OFFSETS[process], None
    for port in range(start, start + INSTANCES_MAX[process]):
        try:
            prometheus_client.start_http_server(port, addr=host)
        except OSError as error:
            reason = error.strerror
            if error.errno != errno.EADDRINUSE:
                break  # As at any other port: the host has no such address, or the name has none.
            continue
        log.info("metrics_served", host=host, port=port)
        return port
    log.warning(
        "no_metrics_port", host=host, first=start, ports=INSTANCES_MAX[process], reason=reason
    )
    return None
