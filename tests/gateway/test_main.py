"""The entry point: the listening socket, and the process."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from gateway.__main__ import listening_socket
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


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_CONNECTIONS", "-1"), ("HOST", "0.0.0.0"), ("AUTH_TOKENS_FILE", "/nonexistent")],
)
def test_an_invalid_setting_prints_one_line(
    environment: dict[str, str], name: str, value: str
) -> None:
    with LoggedProcess("gateway", **{**environment, name: value}) as gateway:
        assert gateway.wait() == exit_codes.CONFIG
    errors = [line for line in gateway.lines if line.startswith("error: ")]
    assert len(errors) == 1 and name in errors[0]


def test_a_data_directory_that_cannot_be_written_ends_it(environment: dict[str, str]) -> None:
    with LoggedProcess("gateway", **{**environment, "DATA_DIR": "/dev/null/asr"}) as gateway:
        assert gateway.wait() == exit_codes.UNAVAILABLE
    (error,) = [line for line in gateway.lines if line.startswith("error: ")]
    assert error == "error: DATA_DIR /dev/null/asr: Not a directory"


def test_a_port_in_use_is_final(environment: dict[str, str]) -> None:
    with (
        socket.create_server(("127.0.0.1", int(environment["PORT"]))),
        LoggedProcess("gateway", **environment) as gateway,
    ):
        assert gateway.wait() == exit_codes.UNAVAILABLE
    assert any("in use; set PORT to a free one" in line for line in gateway.lines)
