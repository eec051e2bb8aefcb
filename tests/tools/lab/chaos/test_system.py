"""Addresses: every link but the broker's own goes through a relay."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.lab.chaos.system import System


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


@pytest.mark.parametrize("name", ["gateway", "gateway2", "asr_worker", "persistence"])
def test_processes_connect_to_relays(system: System, name: str) -> None:
    direct, relayed = system.settings_of("broker"), system.settings_of(name)
    for setting in ("BROKER_FRONTEND", "BROKER_BACKEND", "BROKER_EVENTS"):
        assert relayed[setting] != direct[setting]
    assert str(system.relay_sockets) in relayed["REDIS_URL"]
    assert "relays" in relayed["DATABASE_URL"] and "relays" not in system.database_url
    assert str(system.http_port) not in system.websocket_url


def test_with_two_brokers_every_peer_knows_both(tmp_path: Path) -> None:
    system = System(tmp_path, brokers=2)
    for setting in ("BROKER_FRONTEND", "BROKER_BACKEND", "BROKER_EVENTS"):
        first, second = (system.settings_of(name)[setting] for name in ("broker", "broker2"))
        for name in ("gateway2", "asr_worker", "persistence"):
            relayed, direct = system.settings_of(name)[setting].split(",")
            assert direct == second and len({first, second, relayed}) == 3


def test_gateways_and_persistence_have_links_of_their_own(system: System) -> None:
    fronts = {system.settings_of(name)["BROKER_FRONTEND"] for name in ("gateway", "persistence")}
    assert len(fronts) == 2


def test_only_workers_have_the_sabotage(system: System) -> None:
    assert "site" in system.settings_of("asr_worker")["PYTHONPATH"]
    assert "PYTHONPATH" not in system.settings_of("gateway")
    assert "DATABASE_URL" not in system.settings_of("embedded")
