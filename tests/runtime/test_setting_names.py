from __future__ import annotations

from asr_worker.settings import WorkerSettings
from broker.settings import BrokerSettings
from gateway.settings import GatewaySettings
from persistence.settings import PersistenceSettings
from runtime.setting_names import NAMES


def test_all_settings_are_listed() -> None:
    processes = (GatewaySettings, BrokerSettings, WorkerSettings, PersistenceSettings)
    assert {name.upper() for each in processes for name in each.model_fields} == NAMES
