from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator

import pytest
import structlog

from gateway.telemetry.metrics import ACCEPT_FAILURES
from gateway.web.accept_errors import AcceptErrors

CLIENTS = 20


@contextlib.contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    """At most ``left`` more files can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as newest:
        highest = newest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_one_line_is_logged_and_connections_wait(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.accept_errors.LOG_INTERVAL_S", 60.0)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(AcceptErrors())
    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(
        lambda _reader, writer: accepted.append(writer), "127.0.0.1", 0, backlog=100
    )
    port = server.sockets[0].getsockname()[1]
    before = ACCEPT_FAILURES._value.get()
    clients = [socket.socket() for _ in range(CLIENTS)]
    try:
        with structlog.testing.capture_logs() as logs:
            with few_descriptors(left=4):
                for client in clients:
                    client.setblocking(False)
                    client.connect_ex(("127.0.0.1", port))
                async with asyncio.timeout(30):
                    while ACCEPT_FAILURES._value.get() == before:
                        await asyncio.sleep(0.01)
            async with asyncio.timeout(30):
                while len(accepted) < CLIENTS:
                    await asyncio.sleep(0.01)
        assert ACCEPT_FAILURES._value.get() > before + 1
        assert [entry["event"] for entry in logs] == ["connections_not_accepted"]
        assert not caplog.records
    finally:
        for client in clients:
            client.close()
        for writer in accepted:
            writer.close()
        server.close()
        await server.wait_closed()
        loop.set_exception_handler(None)
