from __future__ import annotations

import selectors
import socket
from pathlib import Path

import psutil
import pytest

from broker.endless import (
    ARRIVED_BYTES_MAX,
    LOOKS_TO_CUT,
    Connection,
    EndlessMessages,
    connections,
    cut,
)

ONE: Connection = (7, "127.0.0.1:1")
OTHER: Connection = (8, "127.0.0.1:2")
MUCH = ARRIVED_BYTES_MAX + 1


def test_much_without_a_message_is_suspected_and_as_much_again_is_cut() -> None:
    watch = EndlessMessages()
    arrived = 0
    for _ in range(1 + LOOKS_TO_CUT):
        assert watch.look({ONE: arrived, OTHER: 0}) == []
        arrived += MUCH
        assert not arrived > MUCH or watch.suspicious
    assert watch.look({ONE: arrived, OTHER: 0}) == [ONE]
    assert watch.look({OTHER: 0}) == [] and not watch.suspicious


def test_messages_clear_of_suspicion() -> None:
    watch = EndlessMessages()
    for turn in range(1, 20):
        assert watch.look({ONE: turn * MUCH}) == []
        watch.heard(ONE[0])


def test_a_message_from_another_clears_nobody() -> None:
    watch = EndlessMessages()
    found: list[Connection] = []
    for turn in range(1, 10):
        found += watch.look({ONE: turn * MUCH, OTHER: turn * MUCH})
        watch.heard(OTHER[0])
    assert set(found) == {ONE}


def test_who_sends_no_more_is_left_alone() -> None:
    watch = EndlessMessages()
    for _ in range(10):
        assert watch.look({ONE: MUCH}) == []


def test_what_arrives_while_it_is_looked_is_no_proof() -> None:
    watch = EndlessMessages()
    assert watch.look({ONE: MUCH}) == []
    assert watch.look({ONE: 3 * MUCH}) == []
    watch.heard(ONE[0])
    assert watch.look({ONE: 4 * MUCH}) == []


def test_a_descriptor_used_again_is_another_connection() -> None:
    watch = EndlessMessages()
    for port in range(10):
        assert watch.look({(7, f"127.0.0.1:{port}"): MUCH}) == []


def test_the_kernel_tells_what_arrived_and_the_peer_notices_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            with accepted:
                client.sendall(b"x" * 1_000)
                assert accepted.recv(10) == b"x" * 10
                peer = f"127.0.0.1:{client.getsockname()[1]}"
                found = connections([port])
                assert found == {(accepted.fileno(), peer): 1_000}
                assert connections([port + 1 if port < 65_535 else 1]) == {}
                cut((accepted.fileno(), "127.0.0.1:1"))  # By now the descriptor is another's.
                client.sendall(b"y")
                for connection in found:
                    cut(connection)
                client.settimeout(10)
                assert client.recv(1) == b""
                assert accepted.recv(2_000).endswith(b"xy")
            cut((accepted.fileno(), peer))
        assert connections([port]) == {}


def test_looking_leaves_no_descriptors(tmp_path: Path) -> None:
    """At none of the kinds that a process has."""
    pair = socket.socketpair()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        (tmp_path / "file").open("w"),
        selectors.DefaultSelector(),
        pair[0],
        pair[1],
    ):
        before = psutil.Process().num_fds()
        for _ in range(10):
            assert connections([listener.getsockname()[1]]) == {}
        assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("descriptor", [-1, 0, 1 << 20])
def test_a_descriptor_that_is_no_connection_is_left_alone(descriptor: int) -> None:
    cut((descriptor, "127.0.0.1:1"))
