"""A process under test: its log, its environment, its end."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from tools.lab.harness.process import LoggedProcess, inherited, wait_until

LOGS = """
import json, os, sys
print(json.dumps({"event": "ready", "port": os.environ["PORT"]}), flush=True)
print("error: not JSON", file=sys.stderr, flush=True)
sys.stdin.close()
"""
WAITS = LOGS + "import time\ntime.sleep(600)\n"
HAS_A_CHILD = """
import json, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps({"event": "ready", "child": child.pid}), flush=True)
child.wait()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that processes run as the module ``under_test``."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "under_test.py"


def test_events_and_lines(module: Path) -> None:
    module.write_text(WAITS)
    with LoggedProcess("under_test", PORT="7") as process:
        assert process.event("ready")["port"] == "7"
        wait_until(lambda: len(process.lines) == 2, "both lines", 10)
        assert process.lines[1] == "error: not JSON" and len(process.events) == 1
        assert process.exit_code is None
    assert process.exit_code == -signal.SIGTERM
    assert len(process.lines) == 2


def test_a_missing_event_fails_with_the_log(module: Path) -> None:
    module.write_text(LOGS)
    with LoggedProcess("under_test", PORT="7") as process:
        with pytest.raises(AssertionError, match="not JSON"):
            process.event("never")
        with pytest.raises(AssertionError):
            process.event("ready", after=1)
        assert process.wait() == 0


def test_a_log_file_is_appended_to_and_read_from_where_the_process_began(
    module: Path, tmp_path: Path
) -> None:
    module.write_text(LOGS + "print('no newline', end='', flush=True)")
    log = tmp_path / "log"
    log.write_text("of an earlier process\n")
    process = LoggedProcess("under_test", log_path=str(log), PORT="7")
    assert process.wait() == 0
    assert process.lines[1:] == ["error: not JSON", "no newline"]
    assert log.read_text().startswith("of an earlier process\n{")


def test_stop_kills_a_process_that_ignores_sigterm_and_its_children(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.lab.harness.process.STOP_S_MAX", 0.3)
    module.write_text(HAS_A_CHILD)
    process = LoggedProcess("under_test")
    child = psutil.Process(process.event("ready")["child"])
    process.send_signal(signal.SIGSTOP)
    process.stop()
    assert process.exit_code == -signal.SIGKILL
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_settings_of_another_system_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_FRONTEND", "tcp://production:1")
    monkeypatch.setenv("ASR_MODEL", "fake:1ms")
    assert "BROKER_FRONTEND" not in inherited()
    assert inherited()["ASR_MODEL"] == "fake:1ms"


def test_a_process_under_test_fetches_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASR_MODEL", raising=False)
    assert inherited()["ASR_MODEL"] == "demo"


def test_a_condition_that_stays_false_fails() -> None:
    with pytest.raises(AssertionError, match="rain"):
        wait_until(lambda: False, "rain", 0.1)
