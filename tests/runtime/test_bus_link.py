"""A link against a real ROUTER with keys."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import zmq

from broker.zap_auth import ZapAuth
from runtime import bus_link
from runtime.bus_link import Link
from wire import keys, sockets
from wire.sockets import Context

WAIT_S = 60.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    keys.generate(tmp_path)
    return tmp_path


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/back"


@pytest.fixture
def broker(directory: Path) -> Iterator[Context]:
    context: Context = zmq.Context()
    zap_auth = ZapAuth(context, keys.read(directory, "broker"))
    yield context
    zap_auth.stop()
    context.destroy(linger=0)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    with structlog.testing.capture_logs() as logs:
        yield _Names(logs)


class _Names(list[str]):
    def __init__(self, logs: list) -> None:  # type: ignore[type-arg]
        self._logs = logs

    def __contains__(self, name: object) -> bool:
        return any(entry["event"] == name for entry in self._logs)


def new_link(context: Context, endpoint: str, files: keys.KeyFiles | None) -> Link:
    return Link(
        endpoint,
        lambda endpoint, found, events: sockets.connect_dealer(
            context, endpoint, "worker-1", found, events=events
        ),
        files,
        time.monotonic(),
    )


def turn_until(link: Link, condition: Callable[[list[bus_link.Change]], bool]) -> None:
    """Turn it until the changes so far meet ``condition``."""
    deadline_s = time.monotonic() + WAIT_S
    seen: list[bus_link.Change] = []
    while not condition(seen):
        assert time.monotonic() < deadline_s, seen
        link.socket.poll(10)
        seen += link.turn(time.monotonic())


def access(directory: Path) -> sockets.Access:
    return sockets.Access(keys.read(directory, "broker"), "back")


def test_a_refused_peer_is_connected_once_its_key_is_put_right(
    directory: Path, broker: Context, context: Context, endpoint: str, events: list[str]
) -> None:
    own = directory / "own"
    own.mkdir()
    for name in ("broker.public", "worker.public", "worker.secret"):
        (own / name).write_bytes((directory / name).read_bytes())
        (own / name).chmod(0o600)
    for half in ("public", "secret"):
        (own / f"worker.{half}").write_bytes((directory / f"gateway.{half}").read_bytes())
    with sockets.bind_router(broker, endpoint, access(directory)) as router:
        link = new_link(context, endpoint, keys.KeyFiles(own, "worker"))
        turn_until(link, lambda seen: "replaced" in seen)
        assert "bus_refused" in events
        for half in ("public", "secret"):
            (own / f"worker.{half}").write_bytes((directory / f"worker.{half}").read_bytes())
        turn_until(link, lambda seen: "connected" in seen)
        assert "bus_connected" in events
        link.socket.send(b"here")
        assert router.poll(round(WAIT_S * 1000))
        assert router.recv_multipart() == [b"worker-1", b"here"]
        link.close(linger_ms=0)


def test_a_peer_without_keys_logs_the_reason_of_its_wait(
    directory: Path, broker: Context, context: Context, endpoint: str, events: list[str]
) -> None:
    with sockets.bind_router(broker, endpoint, access(directory)):
        link = new_link(context, endpoint, None)
        turn_until(link, lambda seen: seen.count("replaced") >= 2)
        assert "bus_refused" in events
        link.close(linger_ms=0)


def test_another_key_of_the_broker_is_reported(
    directory: Path, broker: Context, context: Context, endpoint: str
) -> None:
    own = directory / "own"
    shutil.copytree(directory, own)
    (own / "broker.public").write_bytes((directory / "worker.public").read_bytes())
    with sockets.bind_router(broker, endpoint, access(directory)):
        with structlog.testing.capture_logs() as logs:
            link = new_link(context, endpoint, keys.KeyFiles(own, "worker"))
            turn_until(link, lambda seen: "replaced" in seen)
        (refused,) = (entry for entry in logs if entry["event"] == "bus_refused")
        assert "broker.public" in refused["reason"]
        link.close(linger_ms=0)


def test_a_broker_that_does_not_answer_a_handshake_has_refused_nothing(
    directory: Path, context: Context, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_INTERVAL_MS", 100)
    monkeypatch.setattr(bus_link, "UNREACHED_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        link = new_link(context, endpoint, keys.KeyFiles(directory, "worker"))
        turn_until(link, lambda _: "broker_not_reached" in events)
        # Several handshakes have timed out by then.
        assert "bus_refused" not in events
        link.close(linger_ms=0)


def test_a_broker_that_is_not_there_is_reported_once(
    context: Context, endpoint: str, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_link, "UNREACHED_S", 0.1)
    link = new_link(context, endpoint, None)
    turn_until(link, lambda _: "broker_not_reached" in events)
    with sockets.bind_router(context, endpoint):
        turn_until(link, lambda seen: "connected" in seen)
        assert "bus_connected" in events
    link.close(linger_ms=0)


def test_an_endpoint_for_other_sockets_is_reported(
    context: Context, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_link, "UNREACHED_S", 2 * WAIT_S)
    with sockets.bind_xpub(context, endpoint), structlog.testing.capture_logs() as logs:
        link = new_link(context, endpoint, None)
        turn_until(link, lambda _: link._ended_early)
        assert not logs
        link.turn(time.monotonic() + bus_link.UNREACHED_S)
        link.close(linger_ms=0)
    assert (logs[0]["event"], logs[0]["reason"]) == ("broker_not_reached", bus_link.ENDED_EARLY)


def test_a_second_connection_is_reported(context: Context, endpoint: str) -> None:
    router = sockets.bind_router(context, endpoint)
    link = new_link(context, endpoint, None)
    turn_until(link, lambda seen: "connected" in seen)
    sockets.unbind(router)
    with sockets.bind_router(context, endpoint):
        turn_until(link, lambda seen: seen == ["connected"])
    link.close(linger_ms=0)
