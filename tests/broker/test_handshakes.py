from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import zmq

from broker.handshakes import LOG_INTERVAL_S, Handshakes
from broker.metrics import HANDSHAKES_FAILED
from broker.zap_auth import ZapAuth
from wire import keys, sockets
from wire.keys import Keys
from wire.sockets import Context

WAIT_S = 60.0


def failed() -> float:
    value: float = HANDSHAKES_FAILED.labels("front")._value.get()
    return value


class Front:
    """A bound socket with keys, and its peers."""

    def __init__(self, directory: Path) -> None:
        keys.generate(directory)
        self.keys = keys.read(directory, "gateway")
        own = keys.read(directory, "broker")
        self._context: Context = zmq.Context()
        self._peers: Context = zmq.Context()
        self._connected: list[sockets.Socket] = []
        self._zap_auth = ZapAuth(self._context, own)
        endpoint = "tcp://127.0.0.1:0"
        self.socket = sockets.bind_router(self._context, endpoint, sockets.Access(own, "front"))
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.handshakes = Handshakes()
        self.handshakes.watch("front", self.socket)

    def connect(self, peer: Keys | None) -> sockets.Socket:
        made = sockets.connect_dealer(self._peers, self.endpoint, "gateway-1", peer)
        self._connected.append(made)
        return made

    def turn_until_failed(self, count: float, now_s: float) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while failed() < count:
            assert time.monotonic() < deadline_s
            self.handshakes.turn(now_s)
            time.sleep(0.01)

    def close(self) -> None:
        self.handshakes.forget()
        for peer in self._connected:
            peer.close(linger=0)
        self._peers.term()
        self.socket.close(linger=0)
        self._zap_auth.stop()
        self._context.term()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    made = Front(tmp_path)
    yield made
    made.close()


def test_peers_without_keys_are_counted_and_logged_once_an_interval(front: Front) -> None:
    before = failed()
    with structlog.testing.capture_logs() as logs:
        front.connect(None)
        front.turn_until_failed(before + 1, 0.0)
        front.handshakes.turn(0.0)
        first = int(failed() - before)
        front.connect(None)
        front.turn_until_failed(before + first + 1, LOG_INTERVAL_S / 2)
        assert [entry["event"] for entry in logs] == ["bus_handshakes_failed"]
        front.handshakes.turn(LOG_INTERVAL_S)
    assert [entry["socket"] for entry in logs] == ["front", "front"]
    assert sum(entry["count"] for entry in logs) == failed() - before


def test_peers_with_another_key_of_the_broker_are_counted(front: Front) -> None:
    before = failed()
    other, _ = zmq.curve_keypair()
    front.connect(replace_broker(front.keys, other))
    front.turn_until_failed(before + 1, 0.0)


def replace_broker(own: Keys, public: bytes) -> Keys:
    return Keys(role=own.role, secret=own.secret, public={**own.public, "broker": public})


def test_a_connection_that_says_nothing_is_counted(front: Front) -> None:
    before = failed()
    port = int(front.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        pass
    front.turn_until_failed(before + 1, 0.0)


def test_an_allowed_peer_is_not_counted(front: Front) -> None:
    before = failed()
    front.connect(front.keys).send(b"here")
    assert front.socket.poll(round(WAIT_S * 1000))
    front.handshakes.turn(0.0)
    assert failed() == before
