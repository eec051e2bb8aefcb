from __future__ import annotations

import pytest
from pydantic import ValidationError

from persistence.settings import PersistenceSettings
from runtime import settings


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSISTENCE_BATCH_ROWS_MAX", "7")
    monkeypatch.setenv("PERSISTENCE_BATCH_WAIT_MS", "25")
    monkeypatch.setenv("PERSISTENCE_PENDING_ROWS_MAX", "70")
    monkeypatch.setenv("PERSISTENCE_PENDING_MIB_MAX", "2")
    limits = PersistenceSettings().limits()
    assert (limits.batch_rows_max, limits.batch_wait_s) == (7, 0.025)
    assert (limits.pending_rows_max, limits.pending_bytes_max) == (70, 2 << 20)


def test_a_batch_size_of_zero_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSISTENCE_BATCH_ROWS_MAX", "0")
    with pytest.raises(ValidationError):
        PersistenceSettings()


def test_a_malformed_url_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres//ann:secret@host/db")
    with pytest.raises(ValidationError) as caught:
        PersistenceSettings()
    messages = str(caught.value.errors(include_input=False, include_context=False))
    assert "DATABASE_URL" in messages
    assert "secret" not in messages


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        # libpq would look for the host ss@host, and log it.
        ("DATABASE_URL", "postgresql://ann:pa@ss@host/db", "%40"),
        ("DATABASE_URL", "postgresql://ann:secret@host:5432a/db", "port"),
        ("DATABASE_URL", "postgresql://ann:pa/ss@host/db", "%2F"),
        ("DATABASE_URL", "postgresql://ann:pa%ss@host/db", "%25"),
        ("DATABASE_URL", "postgresql://ann:pa ss@host/db", "%20"),
        ("DATABASE_URL", "postgresql+psycopg://ann:secret@host/db", "postgresql://USER"),
        ("DB_HOST", "ann:pa@ss", "%40"),
    ],
)
def test_the_message_names_the_mend(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    hint: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        settings.load(PersistenceSettings)
    message = capsys.readouterr().err
    assert name in message and hint in message
    assert "secret" not in message and "pa" not in message.replace("password", "")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://one,two:5433/db",
        "postgresql://ann:pa%40ss@[::1]:5432/db",
        "postgresql:///db?host=@abstract",
        "host=/run/postgresql dbname=db",
    ],
)
def test_forms_of_libpq(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert settings.load(PersistenceSettings).database_address() == url


def test_both_lists_of_brokers_have_the_same_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_FRONTEND", "tcp://one:7101,tcp://two:7101")
    monkeypatch.setenv("BROKER_EVENTS", "tcp://one:7103")
    with pytest.raises(ValidationError, match="must list the same brokers"):
        PersistenceSettings()
