from pathlib import Path

import pytest

from broker.settings import BrokerSettings
from runtime import settings
from wire import keys


def test_limits_are_converted_to_the_units_of_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_QUEUE_AUDIO_S_MAX", "90")
    monkeypatch.setenv("BROKER_LEASE_S", "7.5")
    limits = BrokerSettings().limits()
    assert (limits.queue_audio_ms_max, limits.lease_s) == (90_000, 7.5)


@pytest.mark.parametrize("name", ["BROKER_FRONTEND", "BROKER_BACKEND", "BROKER_EVENTS"])
@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:7102", "tcp://*:7102", "tcp://10.0.0.5:7102"])
def test_a_public_bus_needs_consent(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    endpoint: str,
) -> None:
    monkeypatch.setenv(name, endpoint)
    with pytest.raises(SystemExit) as caught:
        settings.load(BrokerSettings)
    assert caught.value.code == 78
    message = capsys.readouterr().err
    assert name in message and "ALLOW_PUBLIC_BUS" in message
    monkeypatch.setenv("ALLOW_PUBLIC_BUS", "true")
    assert getattr(BrokerSettings(), name.lower()) == endpoint


def test_keys_replace_consent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys.generate(tmp_path)
    monkeypatch.setenv("BUS_KEYS_DIR", str(tmp_path))
    monkeypatch.setenv("BROKER_BACKEND", "tcp://0.0.0.0:7102")
    files = BrokerSettings().bus_keys("broker")
    assert files is not None and set(files.keys.allowed) == set(keys.ROLES[1:])


def test_missing_keys_are_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("BUS_KEYS_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        BrokerSettings().bus_keys("broker")
    assert caught.value.code == 78
    assert "BUS_KEYS_DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1", "ipc:///tmp/x"]
)
def test_loopback_needs_no_consent(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("BROKER_BACKEND", endpoint)
    assert BrokerSettings().broker_backend == endpoint


def test_a_queue_that_does_not_fit_into_the_memory_limit_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROKER_QUEUE_AUDIO_S_MAX", "86400")
    with pytest.raises(SystemExit):
        settings.load(BrokerSettings)
    assert "BROKER_MEMORY_MB_MAX" in capsys.readouterr().err
    monkeypatch.setenv("BROKER_MEMORY_MB_MAX", "6000")
    assert BrokerSettings().broker_memory_mb_max == 6_000


@pytest.mark.parametrize("name", ["BROKER_FRONTEND", "BROKER_BACKEND", "BROKER_EVENTS"])
def test_a_broker_binds_one_endpoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "tcp://127.0.0.1:7101,tcp://127.0.0.1:7102")
    with pytest.raises(ValueError, match="the one endpoint that this broker binds"):
        BrokerSettings()
