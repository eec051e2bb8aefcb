"""Where each process runs, and what it connects to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import pytest

from tools.lab.hosts import network
from tools.lab.hosts.system import BUS_PORTS, GATEWAYS, SERVERS, System


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


@pytest.fixture(params=[1, 2])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    """With one broker, and with two."""
    planned = System(tmp_path, cast(network.Network, Planned()), brokers=request.param)
    yield planned
    planned.stop()


def test_each_process_and_server_has_a_host(system: System) -> None:
    assert set(system.hosts) == {*system.names, *SERVERS}
    assert len({host.address for host in system.hosts.values()}) == len(system.hosts)
    for name in system.names:
        assert f"--net={network.NAMESPACES / name}" in system.prefix_of(name)
    assert len({system.settings_of(name)["DATA_DIR"] for name in system.names}) == len(system.names)


def test_all_of_them_name_the_brokers_and_have_keys(system: System) -> None:
    for name in system.names:
        settings = system.settings_of(name)
        for variable, port in BUS_PORTS.items():
            named = [name] if name in system.brokers else system.brokers
            endpoints = [f"tcp://{system.hosts[broker].address}:{port}" for broker in named]
            assert settings[variable].split(",") == endpoints
        assert (Path(settings["BUS_KEYS_DIR"]) / "broker.secret").exists()


def test_clients_reach_each_gateway_at_its_address(system: System) -> None:
    addresses = {system.url(gateway) for gateway in GATEWAYS}
    assert addresses == {f"ws://{system.hosts[g].address}:8080/ws/asr" for g in GATEWAYS}
    assert system.hosts["postgres"].address in system.database_url
