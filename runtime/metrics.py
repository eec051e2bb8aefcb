"""The Prometheus endpoint of processes that have no HTTP server of their own."""

from __future__ import annotations

import prometheus_client
import structlog


def serve(port: int) -> None:
    """Serve ``/metrics`` on loopback in a daemon thread; ``port`` 0 means none.

    A taken port is logged and the process goes on: being measured is not worth failing for.
    """
    if port == 0:
        return
    try:
        prometheus_client.start_http_server(port, addr="127.0.0.1")
    except OSError as error:
        structlog.get_logger().warning("metrics_port_unavailable", port=port, error=str(error))
