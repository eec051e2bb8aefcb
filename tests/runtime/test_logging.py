from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
logging.getLogger("gateway.broker_client").debug("ours")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("batch_failed")
"""


def logged(level: str, log_format: str, **environment: str) -> list[str]:
    shown = subprocess.run(
        [sys.executable, "-c", LOG, level, log_format],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ".", **environment},
        cwd=Path(__file__).parents[2],
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


def test_auto_is_json_without_a_terminal_and_console_under_honcho() -> None:
    assert logged("info", "auto")[0].startswith("{")
    assert not logged("info", "auto", HONCHO_PROCESS_NAME="gateway.1")[0].startswith("{")
