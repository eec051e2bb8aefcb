"""The entry point: the listening socket, and the process."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from structlog.testing import capture_logs

import gateway.__main__
from gateway.__main__ import END_S_MAX, listening_socket
from gateway.web.uvicorn_protocols import NOT_UTF_8, HttpProtocol
from runtime import exit_codes
from tools.lab.harness.process import LoggedProcess, wait_until


@pytest.fixture
def environment(tmp_path: Path, unused_tcp_port: int) -> Iterator[dict[str, str]]:
    """Settings of a gateway without a broker, Redis or PostgreSQL."""
    yield {
        "PORT": str(unused_tcp_port),
        "DATA_DIR": str(tmp_path),
        "BROKER_FRONTEND": f"ipc://{tmp_path}/frontend",
    }


def status_of(url: str, path: str) -> int | None:
    """None while the gateway does not accept connections yet."""
    try:
        return httpx2.get(url + path, timeout=30, trust_env=False).status_code
    except httpx2.ConnectError:
        return None


def test_gateways_share_a_port(unused_tcp_port: int) -> None:
    with (
        listening_socket("127.0.0.1", unused_tcp_port) as one,
        listening_socket("127.0.0.1", unused_tcp_port) as other,
    ):
        assert one.getsockname() == other.getsockname() == ("127.0.0.1", unused_tcp_port)


def test_an_ipv6_address_gets_an_ipv6_socket(unused_tcp_port: int) -> None:
    with listening_socket("::1", unused_tcp_port) as listener:
        assert listener.family == socket.AF_INET6


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_a_port_in_use_and_a_foreign_address_are_errors(unused_tcp_port: int, host: str) -> None:
    with socket.create_server(("127.0.0.1", unused_tcp_port)), pytest.raises(OSError):
        listening_socket(host, unused_tcp_port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_serves_until_a_signal_and_drains(
    environment: dict[str, str], number: signal.Signals
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # A test runner may ignore it.
    with LoggedProcess("gateway", **environment) as gateway:
        serving = gateway.event("serving")
        assert serving["url"] == f"http://127.0.0.1:{environment['PORT']}"
        wait_until(lambda: status_of(serving["url"], "/metrics") == 200, "an answer", 30.0)
        gateway.send_signal(number)
        assert gateway.wait() == exit_codes.OK
        assert "draining" in [event["event"] for event in gateway.events]


def test_mistakes_of_clients_are_not_logged_by_libraries(environment: dict[str, str]) -> None:
    port = int(environment["PORT"])
    with LoggedProcess("gateway", **environment) as process:
        url = process.event("serving")["url"]
        wait_until(lambda: status_of(url, "/metrics") == 200, "an answer", 30.0)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"\0\1\2\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 400")
        answer = httpx2.post(
            f"{url}/api/v1/asr/submit",
            content=b"--x\r\n\0: \0" + bytes(1000),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
            trust_env=False,
        )
        assert answer.json()["code"] == "bad_form"
        assert process.event("form_refused")["reason"] in answer.json()["message"]
        loggers = {event["logger"] for event in process.events}
        assert not {name for name in loggers if name.startswith(("uvicorn", "python_multipart"))}


def test_text_that_is_not_utf_8_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("uvicorn.error")
    gateway.__main__.quiet_libraries()
    try:
        logger.error(NOT_UTF_8)
        logger.error("another error")
    finally:
        logger.filters.clear()
        for name in ("uvicorn", "python_multipart"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    assert [record.msg for record in caplog.records] == ["another error"]


class _Closing:
    """An application that notes its end, and may fail in it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.ended = False
        self.error = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.ended = True
        if self.error is not None:
            await send({"type": "lifespan.shutdown.failed", "message": str(self.error)})
        await send({"type": "lifespan.shutdown.complete"})


class _Protocol(HttpProtocol):
    faults = 0
    """Connections whose end fails."""

    def shutdown(self) -> None:
        if _Protocol.faults > 0:
            _Protocol.faults -= 1
            raise ValueError("a fault")
        super().shutdown()


async def _exit_code(application: _Closing, port: int) -> int:
    """Serve two connections until a signal."""
    config = uvicorn.Config(application, http=_Protocol, log_config=None, lifespan="on")
    web = gateway.__main__._Server(config, None, None)  # type: ignore[arg-type]
    serving = asyncio.create_task(web.serve(sockets=[listening_socket("127.0.0.1", port)]))
    while not web.started:
        await asyncio.sleep(0.01)
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    while len(web.server_state.connections) < len(clients):
        await asyncio.sleep(0.01)
    signal.raise_signal(signal.SIGTERM)
    await serving
    for reader, writer in clients:
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert application.ended
    return web.exit_code


@pytest.mark.parametrize("fault", ["", "drain_failed", "connection_not_closed", "application"])
async def test_each_step_of_the_end_is_done_after_an_error_of_another(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int, fault: str
) -> None:
    async def drain(_server: None) -> None:
        if fault == "drain_failed":
            raise OSError("a fault")

    limits: list[tuple[float, bool]] = []
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda limit_s, exit: limits.append((limit_s, exit))
    )
    monkeypatch.setattr(gateway.__main__, "drain", drain)
    monkeypatch.setattr(_Protocol, "faults", int(fault == "connection_not_closed"))
    application = _Closing(OSError("a fault") if fault == "application" else None)
    with capture_logs() as logs:
        code = await _exit_code(application, unused_tcp_port)
    assert code == (exit_codes.FAILURE if fault else exit_codes.OK)
    assert [line["event"] for line in logs] == [fault] * (fault not in ("", "application"))
    assert limits == [(END_S_MAX, True)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_CONNECTIONS", "many"),
        ("PORT", "99999"),
        ("HOST", "0.0.0.0"),
        ("AUTH_TOKENS_FILE", "/nonexistent"),
    ],
)
def test_an_invalid_setting_prints_one_line(
    environment: dict[str, str], name: str, value: str
) -> None:
    with LoggedProcess("gateway", **{**environment, name: value}) as gateway:
        assert gateway.wait() == exit_codes.CONFIG
    (line,) = gateway.lines
    assert line.startswith("error: ") and name in line


def test_a_data_directory_that_cannot_be_written_ends_it(environment: dict[str, str]) -> None:
    with LoggedProcess("gateway", **{**environment, "DATA_DIR": "/dev/null/asr"}) as gateway:
        assert gateway.wait() == exit_codes.UNAVAILABLE
    (error,) = [line for line in gateway.lines if line.startswith("error: ")]
    assert error == "error: DATA_DIR /dev/null/asr: Not a directory"


@pytest.mark.parametrize("name", ["spool", "jobs"])
def test_a_part_of_the_data_directory_that_cannot_be_used_ends_it(
    environment: dict[str, str], name: str
) -> None:
    path = Path(environment["DATA_DIR"], name)
    path.touch()
    with LoggedProcess("gateway", **environment) as gateway:
        assert gateway.wait() == exit_codes.UNAVAILABLE
    (error,) = [line for line in gateway.lines if line.startswith("error: ")]
    assert error == f"error: DATA_DIR {path}: File exists"


def test_a_port_in_use_is_final(environment: dict[str, str]) -> None:
    with (
        socket.create_server(("127.0.0.1", int(environment["PORT"]))),
        LoggedProcess("gateway", **environment) as gateway,
    ):
        assert gateway.wait() == exit_codes.UNAVAILABLE
    assert any("in use; set PORT to a free one" in line for line in gateway.lines)
