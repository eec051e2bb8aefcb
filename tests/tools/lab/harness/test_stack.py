"""The starter of whole systems. The integration tests run on it; here are its promises."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from runtime.metrics import PORT_OFFSETS
from tools.lab.harness.ports import free_range
from tools.lab.harness.process import ROOT
from tools.lab.harness.stack import START_ORDER, STOP_ORDER, Stack, procfile, supervised_stack


def test_the_commands_are_the_procfiles() -> None:
    commands = procfile()
    assert set(commands) == set(START_ORDER) == set(STOP_ORDER)
    assert commands["gateway"] == ["runtime.supervisor", "gateway"]
    assert commands["asr_worker"] == ["asr_worker"]


def test_a_supervised_system_starts_is_observed_and_stops(tmp_path: Path) -> None:
    with supervised_stack({"METRICS_PORT": str(free_range(100))}, gateway=2) as stack:
        assert stack.ports["gateway"] == stack.ports["gateway2"]
        for kind, count in (("gateway", 2), ("broker", 1), ("asr_worker", 1), ("valkey", 1)):
            assert len(stack.living(kind)) == count, kind
        assert set(stack.metrics("broker").processes) == {PORT_OFFSETS["broker"]}
        assert stack.get("/api/v1/health").body["db_ready"]
        members = stack.family()
        assert len(members) > 10 and (stack.logs / "gateway2.log").stat().st_size > 0
        directory = stack.directory
    assert psutil.wait_procs(members, timeout=10)[1] == []
    assert not directory.exists()


def test_a_gateway_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    stack = Stack({"PORT": "99999"}, directory=tmp_path)
    try:
        stack.start("gateway")
        with pytest.raises(AssertionError, match="PORT"):
            stack.wait_ready()
    finally:
        stack.stop()
    assert "PORT" in (tmp_path / "logs" / "gateway.log").read_text()
    assert str(ROOT) not in str(tmp_path)


def test_a_supervised_process_with_a_wrong_setting_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack({"ASR_MODEL": "no-such"}, directory=tmp_path, supervised=True)
    monkeypatch.setattr(stack, "is_ready", lambda *_: False)
    try:
        for name in ("gateway", "asr_worker"):
            stack.start(name)
        with pytest.raises(AssertionError, match="no-such"):
            stack.wait_ready()
    finally:
        stack.stop()


def test_a_system_that_was_ready_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that drains may end right after the answer."""
    answers = [True, False]
    stack = Stack({"PORT": "99999"}, directory=tmp_path)
    monkeypatch.setattr(stack, "is_ready", lambda *_: answers.pop(0))
    try:
        stack.start("gateway")
        stack.wait_ready()
    finally:
        stack.stop()
    assert answers == [False]
