"""tools.ops.ports: ports that stay free until a server binds them."""

from __future__ import annotations

import socket

import pytest

from tools.ops import ports


def test_none_is_where_the_kernel_takes_ports_for_connections() -> None:
    for _ in range(200):
        assert ports.LOWEST <= ports.free_port() < 32_768


def test_none_is_given_twice_in_a_row() -> None:
    given = [ports.free_port() for _ in range(200)]
    assert len(set(given)) == len(given)


def test_a_range_is_free_as_a_whole() -> None:
    first = ports.free_range(20)
    taken = socket.create_server(("127.0.0.1", first + 19))
    # There is no place for it but around the one that is taken.
    with taken, pytest.raises(OSError, match="no 20 free ports"):
        _in_a_row(20, first)


def _in_a_row(count: int, first: int) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "LOWEST", first)
        return ports.free_range(count, highest=first + count + 1)


def test_a_kernel_that_takes_all_leaves_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_kernels_lowest", lambda: 1024)
    assert ports.LOWEST <= ports.free_port() < 65_536
