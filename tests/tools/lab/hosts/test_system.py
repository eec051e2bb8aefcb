"""Where each process runs, and what it connects to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import pytest

from tools.lab.hosts import network
from tools.lab.hosts.system import BROKERS, BUS_PORTS, GATEWAYS, PROCESSES, SERVERS, System


class Cable:
    def close(self) -> None:
        pass


class Planned:
    """A network that is only planned."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add(self, name: str) -> network.Host:
        self.names.append(name)
        return network.Host(name, len(self.names) + 1)

    def add_with_cable(self, name: str, capture: IO[bytes]) -> tuple[network.Host, Cable]:
        return self.add(name), Cable()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    planned = System(tmp_path, cast(network.Network, Planned()))
    yield planned
    planned.stop()


def test_each_process_and_server_has_a_host(system: System) -> None:
    assert set(system.hosts) == {*PROCESSES, *SERVERS}
    assert len({host.address for host in system.hosts.values()}) == len(system.hosts)
    for name in PROCESSES:
        assert f"--net={network.NAMESPACES / name}" in system.prefix_of(name)
    assert len({system.settings_of(name)["DATA_DIR"] for name in PROCESSES}) == len(PROCESSES)


def test_all_of_them_name_the_broker_and_have_keys(system: System) -> None:
    broker = system.hosts[BROKERS[0]].address
    for name in PROCESSES:
        settings = system.settings_of(name)
        for variable, port in BUS_PORTS.items():
            assert settings[variable] == f"tcp://{broker}:{port}"
        assert (Path(settings["BUS_KEYS_DIR"]) / "broker.secret").exists()


def test_clients_reach_each_gateway_at_its_address(system: System) -> None:
    addresses = {system.url(gateway) for gateway in GATEWAYS}
    assert addresses == {f"ws://{system.hosts[g].address}:8080/ws/asr" for g in GATEWAYS}
    assert system.hosts["postgres"].address in system.database_url
