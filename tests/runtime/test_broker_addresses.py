"""Brokers by name: their addresses, and links that follow them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import structlog
import zmq

from runtime import broker_addresses
from runtime.broker_addresses import BrokerAddresses
from runtime.bus_link import Links
from tools.lab.harness.ports import free_port
from wire import sockets

WAIT_S = 60.0


class Names:
    """A resolver whose answers change."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    def resolve(self, name: str, _port: object, **_options: object) -> list[object]:
        if name != "brokers.example" or not self.hosts:
            raise socket.gaierror
        families = {False: socket.AF_INET, True: socket.AF_INET6}
        return [(families[":" in host], 1, 6, "", (host, 0)) for host in self.hosts]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.resolve)
    monkeypatch.setattr(broker_addresses, "RESOLVE_S", 0.05)
    monkeypatch.setattr(broker_addresses, "RESOLVE_AGAIN_S", 0.05)
    return made


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_addresses_need_no_resolver() -> None:
    places = BrokerAddresses("ipc:///run/a,tcp://127.0.0.1:7101,tcp://[::1]:7101").current
    assert list(places.values()) == ["ipc:///run/a", "tcp://127.0.0.1:7101", "tcp://[::1]:7101"]


@pytest.mark.parametrize("answers", [True, False])
def test_a_name_without_an_address_is_logged_even_if_the_resolver_is_silent(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    ended = threading.Event()

    def resolve(*_arguments: object, **_options: object) -> list[object]:
        if not answers:
            ended.wait()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    class Answered(BrokerAddresses):
        """The time until the line begins with the answer, which a busy machine delays."""

        def _log_unresolved(self) -> None:
            until(lambda: not answers or bool(self._reasons))
            super()._log_unresolved()

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(broker_addresses, "UNRESOLVED_S", 0.2)
    with structlog.testing.capture_logs() as logs:
        addresses = Answered("tcp://nosuch.example:7102,tcp://10.0.0.9:7102")
        until(lambda: bool(logs))
    addresses.close()
    ended.set()
    assert logs == [
        {
            "event": "broker_not_reached",
            "log_level": "warning",
            "endpoint": "tcp://nosuch.example:7102",
            "waited_s": 0.2,
            "reason": "Name or service not known" if answers else "the resolver does not answer",
        }
    ]


def test_each_address_of_a_name_is_a_broker_and_the_last_answer_is_kept(names: Names) -> None:
    addresses = BrokerAddresses("tcp://brokers.example:7101,tcp://10.0.0.9:7101")
    assert set(addresses.current.values()) == {"tcp://10.0.0.9:7101"}
    names.hosts = ["10.0.0.2", "10.0.0.1", "fd00::1"]
    expected = {f"tcp://10.0.0.{n}:7101" for n in (1, 2, 9)}
    until(lambda: set(addresses.current.values()) == expected)
    names.hosts = []
    time.sleep(0.2)
    assert set(addresses.current.values()) == expected
    names.hosts = ["fd00::1"]
    until(lambda: "tcp://[fd00::1]:7101" in addresses.current.values())
    # The address is in the list as well: one broker.
    names.hosts = ["10.0.0.9"]
    until(lambda: list(addresses.current.values()) == ["tcp://10.0.0.9:7101"])
    addresses.close()


def test_the_endpoints_of_a_broker_have_the_same_place(names: Names) -> None:
    names.hosts = ["10.0.0.1", "10.0.0.2"]
    front = BrokerAddresses("tcp://127.0.0.1:7101,tcp://brokers.example:7101")
    events = BrokerAddresses("ipc:///run/events,tcp://brokers.example:7103")
    until(lambda: len(front.current) == len(events.current) == 3)
    assert front.current.keys() == events.current.keys()
    for each in (front, events):
        each.close()


@pytest.fixture
def context() -> Iterator[sockets.Context]:
    made: sockets.Context = zmq.Context()
    yield made
    made.destroy(linger=0)


def test_links_follow_the_addresses(names: Names, context: sockets.Context) -> None:
    """A link whose address has vanished is kept while its broker is there."""
    port = free_port()
    routers = {
        h: sockets.bind_router(context, f"tcp://{h}:{port}") for h in ("127.0.0.2", "127.0.0.3")
    }
    links = Links(
        f"tcp://brokers.example:{port}",
        lambda endpoint, keys, events: sockets.connect_dealer(
            context, endpoint, "worker-1", keys, events=events
        ),
        None,
        zmq.Poller(),
        time.monotonic(),
    )
    new: list[str] = []

    def connected(count: int) -> bool:
        new.extend(links.turn(time.monotonic()))
        return links.connected == len(list(links)) == count

    assert connected(0)
    names.hosts = ["127.0.0.2"]
    until(lambda: connected(1))
    names.hosts = ["127.0.0.3"]
    until(lambda: connected(2))
    routers["127.0.0.2"].close(linger=0)
    until(lambda: connected(1))
    assert new == ["0 127.0.0.2", "0 127.0.0.3"]
    assert [place for place, _ in links] == ["0 127.0.0.3"]
    links.close(linger_ms=0)
    routers["127.0.0.3"].close(linger=0)
