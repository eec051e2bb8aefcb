from __future__ import annotations

from pathlib import Path

import pytest

from runtime import endpoints
from runtime.run_directory import LONGEST_NAME


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:7101",
        "tcp://*:7101",
        "tcp://eth0:7101",
        "tcp://broker.example.org:65535",
        "tcp://[::1]:7101",
        "tcp://[fe80::1%eth0]:7101",
        "tcp://[fe80::1%br-0.1]:7101",
        "ipc:///run/asr/front",
        "ipc:///run/a:b",
    ],
)
def test_endpoints_of_both_kinds(endpoint: str) -> None:
    assert endpoints.check(endpoint) == endpoint


@pytest.mark.parametrize(
    "endpoint, said",
    [
        ("tcp://host", "port is missing"),
        ("tcp://[::1]", "port is missing"),
        ("tcp://host:0", "between 1 and 65535"),
        ("tcp://host:65536", "between 1 and 65535"),
        ("tcp://host:port", "tcp://HOST:PORT"),
        ("tcp://::1:7101", r"\[IPV6\]"),
        ("tcp://:7101", "tcp://HOST:PORT"),
        ("tcp://a b:7101", "tcp://HOST:PORT"),
        ("tcp://user@host:7101", "tcp://HOST:PORT"),
        ("tcp://host:\uff17\uff11", "tcp://HOST:PORT"),
        ("tcp://one:7101,tcp://two:7101", "not a list"),
        ("tcp://one:7101 tcp://two:7101", "not a list"),
        ("host:7101", "tcp://HOST:PORT"),
        ("ipc://", "ipc://PATH"),
        ("tcp://host..example:7101", "empty, longer than 63"),
        ("tcp://" + "h" * 64 + ":7101", "empty, longer than 63"),
        ("inproc://x", "ipc://PATH"),
        ("ipc:///" + "d" * 107, "108 bytes; at most 107"),
    ],
)
def test_the_message_names_the_fault(endpoint: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        endpoints.check(endpoint)


def test_local_endpoints_are_short_enough_wherever_the_data_is() -> None:
    for depth in range(0, 140, 7):
        for name in ("frontend", "backend", "events"):
            endpoint = endpoints.local(Path("/") / ("d" * depth), name)
            assert endpoints.check(endpoint) == endpoint
            assert len(endpoint.rpartition("/")[2]) <= len(LONGEST_NAME)


def test_a_list_has_each_endpoint_once() -> None:
    listed = " tcp://one:7101, ipc:///run/b ,tcp://one:7101,"
    assert endpoints.check_list(listed) == "tcp://one:7101,ipc:///run/b"
    assert endpoints.split(endpoints.check_list(listed)) == ("tcp://one:7101", "ipc:///run/b")
    assert endpoints.split(endpoints.check_list("")) == ()
    with pytest.raises(ValueError, match="port is missing"):
        endpoints.check_list("tcp://one:7101,tcp://two")


@pytest.mark.parametrize(
    ("endpoint", "leaves"),
    [
        ("ipc:///run/front.sock", False),
        ("tcp://127.0.0.1:7101", False),
        ("tcp://localhost:7101", False),
        ("tcp://[::1]:7101", False),
        ("tcp://10.0.0.7:7101", True),
        ("tcp://[2001:db8::7]:7101", True),
        ("tcp://broker.example:7101", True),
        ("tcp://0.0.0.0:7101", True),
    ],
)
def test_what_may_reach_another_host(endpoint: str, leaves: bool) -> None:
    assert endpoints.leaves_host(endpoint) == leaves
