"""``python -m gateway``: serve WebSocket and REST until SIGTERM, then drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging as stdlib_logging
import os
import signal
import socket

import structlog
import uvicorn

from gateway.draining import drain
from gateway.server import Server
from gateway.settings import GatewaySettings
from gateway.telemetry.metrics import show_limits
from gateway.web.app import create_app
from gateway.web.auth_tokens import load_tokens
from gateway.web.uvicorn_protocols import HEAD_BYTES_MAX, HttpProtocol, WebSocketProtocol
from runtime import exit_codes, lifecycle, logging, memory, metrics, settings, tracing

LISTEN_BACKLOG = 2_048
PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 20.0


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket. Several gateways on one host share a port (SO_REUSEPORT).

    Raises:
        OSError: another program uses the port, or ``host`` is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    """uvicorn with our signal handling: drain, then exit."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server
        self._draining: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_drain)
        yield

    def _begin_drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        await drain(self._server)
        self.should_exit = True


def main() -> int:
    memory.map_large()
    values = settings.load(GatewaySettings)
    logging.configure(values.log_level, values.log_format, "gateway")
    # At level info uvicorn logs two lines for each connection, with its full address.
    stdlib_logging.getLogger("uvicorn").setLevel(stdlib_logging.WARNING)
    described = settings.describe(values)
    port_source = settings.http_port(os.environ)[1]
    tokens = load_tokens(values.auth_tokens_file)
    settings.log_effective(values, port=f"{values.port} ({port_source})")
    try:
        listener = listening_socket(values.host, values.port)
    except OSError as error:
        settings.fail(
            f"cannot serve on {values.host}:{values.port}: {error.strerror or error}; "
            "is another program using the port? Set PORT to a free one",
            exit_codes.UNAVAILABLE,
        )
    metrics.serve("gateway", values.metrics_port)
    tracing.start("gateway", *values.traces())
    show_limits(
        est_wait_ms_max=values.est_wait_ms_max, outbox_records_max=values.outbox_records_max
    )
    server = Server(values)
    sources = {name: text.rpartition("(")[2].rstrip(")") for name, text in described.items()}
    config = uvicorn.Config(
        create_app(server, sources, tokens),
        http=HttpProtocol,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        ws=WebSocketProtocol,
        ws_max_size=values.message_bytes_max,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        backlog=LISTEN_BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    structlog.get_logger().info(
        "serving", url=f"http://{values.host}:{values.port}", gateway_id=server.gateway_id
    )
    _Server(config, server).run(sockets=[listener])
    tracing.stop()
    return exit_codes.OK


if __name__ == "__main__":
    lifecycle.die_with_parent()
    raise SystemExit(main())
