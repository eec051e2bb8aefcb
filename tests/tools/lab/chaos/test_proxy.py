from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tools.lab.chaos.proxy import Address, Proxy
from tools.lab.harness.ports import free_port

TIMEOUT_S = 10.0
NOTHING_S = 0.3
"""How long nothing may arrive; a shorter time would only weaken the test."""


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65_536):
            server = self.server
            assert isinstance(server, EchoServer)
            server.received += data
            self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    received = b""


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def proxy(server: EchoServer, port: int) -> Iterator[Proxy]:
    proxy = Proxy(Address(port), Address(server.server_address[1]))
    proxy.start()
    yield proxy
    proxy.stop()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", port), TIMEOUT_S)) as client:
        yield client


def echoes(client: socket.socket) -> bool:
    client.sendall(b"word")
    return client.recv(100) == b"word"


def receives_nothing(client: socket.socket) -> bool:
    client.settimeout(NOTHING_S)
    try:
        return client.recv(100) == b"not even an end"
    except TimeoutError:
        return True
    finally:
        client.settimeout(TIMEOUT_S)


def is_over(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def test_relays(proxy: Proxy, port: int) -> None:
    with connected(port) as client:
        assert echoes(client)


def test_cut_ends_connections_and_takes_no_new_ones(proxy: Proxy, port: int) -> None:
    with connected(port) as client:
        assert echoes(client)
        proxy.cut()
        assert is_over(client)
    with connected(port) as client:
        assert is_over(client)
    proxy.heal()
    with connected(port) as client:
        assert echoes(client)


def test_hang_up_ends_connections_only(proxy: Proxy, port: int) -> None:
    with connected(port) as client:
        assert echoes(client)
        proxy.hang_up()
        assert is_over(client)
    with connected(port) as client:
        assert echoes(client)


def test_clog_keeps_everything_until_healed(proxy: Proxy, port: int, server: EchoServer) -> None:
    with connected(port) as client:
        assert echoes(client)
        proxy.clog()
        client.sendall(b"later")
        assert receives_nothing(client)
        assert server.received == b"word"
        proxy.heal()
        assert client.recv(100) == b"later"


def test_one_way(proxy: Proxy, port: int, server: EchoServer) -> None:
    with connected(port) as client:
        assert echoes(client)
        proxy.clog(out=False)
        client.sendall(b"later")
        assert receives_nothing(client)
        assert server.received == b"wordlater"
        proxy.heal()
        assert client.recv(100) == b"later"


def test_delay_keeps_the_order(proxy: Proxy, port: int) -> None:
    with connected(port) as client:
        assert echoes(client)
        proxy.delay(0.1)
        began_s = time.monotonic()
        client.sendall(b"one")
        assert client.recv(100) == b"one"
        assert time.monotonic() - began_s >= 0.2  # There and back.
        for number in range(3):
            client.sendall(b"%d" % number)
        received = b""
        while len(received) < 3:
            received += client.recv(100)
        assert received == b"012"


def test_no_server_ends_the_connection(port: int) -> None:
    proxy = Proxy(Address(port), Address(free_port()))
    proxy.start()
    try:
        with connected(port) as client:
            assert is_over(client)
    finally:
        proxy.stop()
