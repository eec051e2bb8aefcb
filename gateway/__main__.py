"""``python -m gateway``: serve WebSocket and REST until SIGTERM, then drain."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import faulthandler
import logging as stdlib_logging
import os
import socket
from collections.abc import Callable
from functools import partial

import structlog
import uvicorn

from gateway.draining import drain
from gateway.server import Server
from gateway.settings import GatewaySettings
from gateway.telemetry.metrics import show_limits
from gateway.web.accept_errors import AcceptErrors
from gateway.web.app import create_app
from gateway.web.auth_tokens import load_tokens
from gateway.web.certificates import Certificates, load_certificates
from gateway.web.forwarded import Forwarded
from gateway.web.jwt_tokens import JwtTokens
from gateway.web.large_messages import LargeMessages
from gateway.web.origins import WebOrigins
from gateway.web.uvicorn_protocols import HEAD_BYTES_MAX, NOT_UTF_8, HttpProtocol, WebSocketProtocol
from runtime import descriptors, exit_codes, lifecycle, logging, memory, metrics, settings, tracing
from runtime.event_loop import new_event_loop

LISTEN_BACKLOG = 2_048
PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 20.0
END_S_MAX = 10.0
"""From the signal to the end of the process. Then it prints what its threads do, and exits with 1.
The drain, uvicorn's shutdown and closing take about half of that."""


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
    """uvicorn with our signal handling: drain, then exit. An error of one step skips no other one;
    ``exit_code`` is then ``FAILURE``."""

    def __init__(
        self, config: uvicorn.Config, server: Server, certificates: Certificates | None
    ) -> None:
        super().__init__(config)
        self._server = server
        self._certificates = certificates
        self._draining: asyncio.Task[None] | None = None
        self.exit_code = exit_codes.OK

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        loop = asyncio.get_running_loop()
        for number in lifecycle.stop_signals():
            loop.add_signal_handler(number, self._begin_drain)
        loop.set_exception_handler(AcceptErrors())
        following = self._certificates and loop.create_task(self._certificates.follow())
        yield
        if following:
            following.cancel()

    def _begin_drain(self) -> None:
        if self._draining is None:
            faulthandler.dump_traceback_later(END_S_MAX, exit=True)
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await drain(self._server)
        except Exception:
            self._note_failure("drain_failed")
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self.server_state.connections:
            end = partial(self._end, connection.shutdown, connection.transport)
            connection.shutdown = end  # type: ignore[method-assign]
        await super().shutdown(sockets)
        if self.lifespan.should_exit:  # uvicorn has logged the error.
            self.exit_code = exit_codes.FAILURE

    def _end(self, shutdown: Callable[[], None], transport: asyncio.Transport) -> None:
        """uvicorn's ``shutdown`` of a connection."""
        try:
            shutdown()
        except Exception:
            self._note_failure("connection_not_closed")
            transport.abort()

    def _note_failure(self, event: str) -> None:
        self.exit_code = exit_codes.FAILURE
        structlog.get_logger().exception(event)


def require_data_dir(values: GatewaySettings) -> None:
    """Create the directories of the spool and of submitted files. Without one of them, records or
    files would be lost; the process ends with one line."""
    for directory in (values.data_dir, values.spool_directory, values.jobs_directory):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "this user may not read and write there")
        except OSError as error:
            settings.fail(f"DATA_DIR {directory}: {error.strerror}", exit_codes.UNAVAILABLE)


def identity_provider(values: GatewaySettings) -> JwtTokens | None:
    if not values.jwt_keys_url:
        return None
    provider = JwtTokens(
        keys_url=values.jwt_keys_url,
        issuer=values.jwt_issuer,
        audience=values.jwt_audience,
        tenant_claim=values.jwt_tenant_claim,
    )
    provider.fetch_early()
    return provider


def quiet_libraries() -> None:
    """Libraries log each mistake of a client, some with a traceback. The gateway counts them, and
    logs those in forms itself. At level info uvicorn also logs two lines for each connection, with
    its full address."""
    stdlib_logging.getLogger("uvicorn").setLevel(stdlib_logging.ERROR)
    stdlib_logging.getLogger("uvicorn.error").addFilter(lambda line: line.msg != NOT_UTF_8)
    stdlib_logging.getLogger("python_multipart").setLevel(stdlib_logging.ERROR)


def main() -> int:
    memory.map_large()
    descriptors.raise_limit()
    values = settings.load(GatewaySettings)
    logging.configure(values.log_level, values.log_format, "gateway")
    quiet_libraries()
    described = settings.describe(values)
    port_source = settings.http_port(os.environ)[1]
    tokens = load_tokens(values.auth_tokens_file)
    provider = identity_provider(values)
    certificates = load_certificates(values.tls_cert_file, values.tls_key_file)
    settings.log_effective(values, port=f"{values.port} ({port_source})")
    require_data_dir(values)
    try:
        listener = listening_socket(values.host, values.port)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        hint = "set PORT to a free one" if taken else "HOST must be an address of this machine"
        settings.fail(
            f"cannot serve on {values.host}:{values.port}: {error.strerror or error}; {hint}",
            exit_codes.UNAVAILABLE,
        )
    metrics.serve("gateway", values.metrics_port, values.metrics_host)
    tracing.start("gateway", values.otel_exporter_otlp_endpoint, values.otel_traces_sampler_arg)
    show_limits(
        est_wait_ms_max=values.est_wait_ms_max, outbox_records_max=values.outbox_records_max
    )
    server = Server(values)
    sources = {name: text.rpartition("(")[2].rstrip(")") for name, text in described.items()}
    origins = WebOrigins(values.allowed_origins)
    config = uvicorn.Config(
        Forwarded(
            create_app(server, sources, tokens, values.host_names, origins, provider),
            values.forwarded_allow_ips,
        ),
        proxy_headers=False,  # They are those of ``Forwarded``.
        http=HttpProtocol,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        ws=WebSocketProtocol.sharing(
            LargeMessages(values.large_messages_bytes_max, values.message_bytes_max)
        ),
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
        "serving",
        url=f"{values.scheme}://{values.host}:{values.port}",
        gateway_id=server.gateway_id,
    )
    if certificates is not None:
        config.ssl_context_factory = lambda _config, _default: certificates.context
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        web = _Server(config, server, certificates)
        runner.run(web.serve(sockets=[listener]))
    tracing.stop()
    return web.exit_code


if __name__ == "__main__":
    lifecycle.die_with_parent()
    raise SystemExit(main())
