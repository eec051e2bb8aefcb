"""Logging with structlog: human-readable on a terminal, else JSON. Never audio or transcripts."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Literal

import structlog

OURS = ["__main__", "asr_worker", "broker", "gateway", "persistence", "runtime", "tools", "wire"]
"""Packages whose debug lines may be shown. Those of libraries quote their data: uvicorn logs the
frames of every WebSocket, which contain audio, transcripts and tokens."""


def configure(level: str, log_format: Literal["auto", "console", "json"], process: str) -> None:
    """Send structlog's and the standard library's log lines to standard error in one format; those
    of libraries from level info on, whatever ``level`` is."""
    if log_format == "auto":
        log_format = "console" if is_interactive() else "json"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: {**event, "process": process},
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if log_format == "console"
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    number = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(number, logging.INFO))
    for name in OURS:
        logging.getLogger(name).setLevel(number)


def is_interactive() -> bool:
    """Whether a person reads standard error: it is a terminal, or honcho passes it to one."""
    if sys.stderr.isatty():
        return True
    return os.environ.get("HONCHO_PROCESS_NAME") is not None and _honcho_has_a_terminal()


def _honcho_has_a_terminal() -> bool:
    # honcho pipes its children's output to its own standard output, so the children look at that.
    pid = os.getppid()
    with contextlib.suppress(OSError, ValueError, IndexError):
        while pid > 1:
            process = Path(f"/proc/{pid}")
            words = (process / "cmdline").read_bytes().split(b"\0")
            if any(word == b"honcho" or word.endswith(b"/honcho") for word in words):
                return _is_terminal(process / "fd" / "1")
            # The name of the program, in brackets, may have spaces.
            pid = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return False


def _is_terminal(path: Path) -> bool:
    # Not isatty: opening another process's terminal could make it our controlling terminal.
    return str(path.readlink()).startswith(("/dev/pts/", "/dev/tty", "/dev/console"))
