"""Ports that stay free until a server binds them."""

from __future__ import annotations

import socket

import pytest

from tools.lab.harness import ports


def test_no_port_is_in_the_ephemeral_range() -> None:
    for _ in range(200):
        assert ports.LOWEST <= ports.free_port() < 32_768


def test_no_port_is_returned_twice() -> None:
    returned = [ports.free_port() for _ in range(200)]
    assert len(set(returned)) == len(returned)


def test_ranges_of_different_lengths_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    # A start beyond the end of the range wraps around.
    monkeypatch.setattr(ports, "_START", 65_000)
    monkeypatch.setattr(ports, "_returned", 0)
    returned = [
        port + i
        for count in (3, 1, 100, 2) * 5
        for port in [ports.free_range(count)]
        for i in range(count)
    ]
    assert len(set(returned)) == len(returned)


def test_a_range_is_free_as_a_whole() -> None:
    first = ports.free_range(20)
    taken = socket.create_server(("127.0.0.1", first + 19))
    # Every range of 20 ports there includes the port in use.
    with taken, pytest.raises(OSError, match="no 20 free ports"):
        _in_a_row(20, first)


def _in_a_row(count: int, first: int) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "LOWEST", first)
        return ports.free_range(count, highest=first + count + 1)


def test_an_ephemeral_range_of_all_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_ephemeral_lowest", lambda: 1024)
    assert ports.LOWEST <= ports.free_port() < 65_536
