"""The entry point, as a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import exit_codes
from tests.persistence.test_service import Broker, persistence
from tools.lab.harness.process import LoggedProcess


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    opened = Broker(tmp_path)
    yield opened
    opened.close()


def test_sigterm_ends_it_in_time_without_a_database(broker: Broker, tmp_path: Path) -> None:
    broker.open_frontend()
    with persistence(broker, f"postgresql://postgres@/postgres?host={tmp_path}") as process:
        process.event("database_unavailable")
        broker.await_subscriber()
        broker.publish_segments("s", range(3))
        assert process.terminate() == exit_codes.OK
        assert process.events[-1]["event"] == "persistence_stopped"
        assert broker.silent()


@pytest.mark.parametrize(
    ("name", "value"),
    [("BROKER_EVENTS", "tcp://nonsense"), ("DATABASE_URL", "postgres//ann:secret@host/db")],
)
def test_an_invalid_setting_prints_one_line(
    broker: Broker, database: str, name: str, value: str
) -> None:
    wrong = {"DATABASE_URL": database, "BROKER_EVENTS": broker.events, name: value}
    with LoggedProcess("persistence", BROKER_FRONTEND=broker.frontend, **wrong) as process:
        assert process.wait() == exit_codes.CONFIG
    errors = [line for line in process.lines if not line.startswith("{")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ") and name in errors[0]
    assert "secret" not in errors[0]
