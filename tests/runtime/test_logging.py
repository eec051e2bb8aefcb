from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOG = """
import logging, sys
import structlog
from runtime import logging as ours
ours.configure(sys.argv[1], sys.argv[2], "gateway")
log = structlog.get_logger()
structlog.contextvars.bind_contextvars(session_id="s-1")
log.debug("chunk_decoded", chunk_index=3)
log.info("session_started", note="数字")
logging.getLogger("funasr.models").warning("from %s", "a library")
logging.getLogger("uvicorn.error").debug("< TEXT what was said")
logging.getLogger("gateway.brokers.client").debug("ours")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("batch_failed")
"""


def logged(level: str, log_format: str, **environment: str) -> list[str]:
    shown = subprocess.run(
        [sys.executable, "-c", LOG, level, log_format],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ".", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert shown.stdout == ""
    return shown.stderr.splitlines()


def test_json_logs_have_one_object_per_line() -> None:
    lines = [json.loads(line) for line in logged("info", "json")]
    assert [line["event"] for line in lines] == [
        "session_started",
        "from a library",
        "batch_failed",
    ]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert {line["process"] for line in lines} == {"gateway"}
    assert lines[0]["note"] == "数字"
    assert lines[0]["session_id"] == "s-1"
    assert lines[1]["logger"] == "funasr.models"
    assert "ZeroDivisionError" in lines[2]["exception"]
    assert all(line["timestamp"].endswith("Z") for line in lines)


@pytest.mark.parametrize("level, count", [("debug", 5), ("warning", 2), ("critical", 0)])
def test_level(level: str, count: int) -> None:
    assert len(logged(level, "json")) == count


def test_debug_lines_of_libraries_are_not_shown() -> None:
    shown = "".join(logged("debug", "json"))
    assert "ours" in shown and "what was said" not in shown


def test_console_is_human_readable() -> None:
    line = logged("info", "console")[0]
    assert "session_started" in line
    assert "note=数字" in line
    assert not line.startswith("{")


def read_all(terminal: int) -> str:
    """Return everything that was written to a pseudo-terminal whose other end is closed."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO marks the end of the file.
        while piece := os.read(terminal, 65_536):
            shown += piece
    return shown.decode()


def test_auto_is_json_unless_standard_error_is_a_terminal() -> None:
    assert logged("info", "auto")[0].startswith("{")
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", LOG, "info", "auto"]
    subprocess.run(command, stderr=theirs, cwd=ROOT, check=True)
    os.close(theirs)
    shown = read_all(ours)
    assert "session_started" in shown and '"event"' not in shown
    os.close(ours)


def under_honcho(folder: Path, output: int) -> None:
    (folder / "log.py").write_text(LOG)
    line = f"one: PYTHONPATH={ROOT} exec {sys.executable} {folder}/log.py info auto"
    (folder / "Procfile").write_text(line)
    command = [sys.executable, "-m", "honcho", "start", "--no-prefix", "--no-colour"]
    subprocess.run(command, cwd=folder, stdout=output, check=True, timeout=60)


def test_under_honcho_auto_is_json_where_its_output_is_redirected(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        under_honcho(tmp_path, output.fileno())
    lines = (tmp_path / "output").read_text().splitlines()
    (started,) = [json.loads(line) for line in lines if "session_started" in line]
    assert started["session_id"] == "s-1"


def test_under_honcho_auto_is_for_people_on_its_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    under_honcho(tmp_path, theirs)
    os.close(theirs)
    shown = read_all(ours)
    assert "session_started" in shown and '"event"' not in shown
    os.close(ours)
