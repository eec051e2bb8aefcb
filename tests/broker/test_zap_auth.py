from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from broker.metrics import KEYS_REFUSED
from broker.zap_auth import ALLOWED, ZapAuth
from wire import keys, sockets
from wire.keys import Keys, Role
from wire.sockets import Context

WAIT_MS = 10_000
HANDSHAKE_OVER = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)
CLIENTS: tuple[Role, ...] = ("gateway", "worker", "persistence")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    keys.generate(tmp_path)
    return tmp_path


@pytest.fixture
def server(directory: Path) -> Iterator[Context]:
    """A context with a ZAP authenticator. Peers have another context, as other processes do."""
    context: Context = zmq.Context()
    zap = ZapAuth(context, keys.read(directory, "broker"))
    yield context
    zap.stop()
    context.term()


@pytest.fixture
def peers() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def refused(domain: str) -> float:
    value: float = KEYS_REFUSED.labels(domain)._value.get()
    return value


def is_admitted(
    server: Context, peers: Context, directory: Path, domain: str, client: Keys | None
) -> bool:
    """Whether a message of the peer arrives before one of a later peer that is allowed."""
    endpoint = f"ipc://{directory}/{domain}"
    access = sockets.Access(keys.read(directory, "broker"), domain)
    welcome = keys.read(directory, min(ALLOWED[domain]))
    with (
        sockets.bind_router(server, endpoint, access) as router,
        sockets.connect_dealer(peers, endpoint, "peer", client) as peer,
        peer.get_monitor_socket(HANDSHAKE_OVER) as monitor,
    ):
        peer.linger = 0
        try:
            peer.send(b"?", zmq.NOBLOCK)
        except zmq.Again:
            return False  # Refused already, and libzmq has given the connection up.
        assert monitor.poll(WAIT_MS)
        peer.disable_monitor()
        with sockets.connect_dealer(peers, endpoint, "welcome", welcome) as sure:
            sure.linger = 0
            sure.send(b"!")
            assert router.poll(WAIT_MS)
            return router.recv_multipart()[0] == b"peer"


@pytest.mark.parametrize("domain", sorted(ALLOWED))
@pytest.mark.parametrize("role", CLIENTS)
def test_roles_are_admitted_to_their_sockets_only(
    server: Context, peers: Context, directory: Path, domain: str, role: Role
) -> None:
    before = refused(domain)
    client = keys.read(directory, role)
    assert is_admitted(server, peers, directory, domain, client) == (role in ALLOWED[domain])
    assert (refused(domain) > before) == (role not in ALLOWED[domain])


def test_an_unknown_key_is_refused(server: Context, peers: Context, directory: Path) -> None:
    public, secret = zmq.curve_keypair()
    broker = keys.read(directory, "broker").public["broker"]
    own = Keys(role="worker", secret=secret, public={"broker": broker, "worker": public})
    assert not is_admitted(server, peers, directory, "back", own)


def test_a_peer_without_keys_is_refused(server: Context, peers: Context, directory: Path) -> None:
    assert not is_admitted(server, peers, directory, "back", None)
