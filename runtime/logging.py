"""Logging with structlog: human-readable on a terminal, else JSON. Never audio or transcripts."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import structlog

OURS = ["__main__", "asr_worker", "broker", "gateway", "persistence", "runtime", "tools", "wire"]
"""Packages whose debug lines may be shown. Those of libraries quote their data: uvicorn logs the
frames of every WebSocket, which contain audio, transcripts and tokens."""


def configure(level: str, log_format: Literal["auto", "console", "json"], process: str) -> None:
    """Send structlog's and the standard library's log lines to standard error in one format.

    Lines of libraries (uvicorn, funasr) are shown from level info on, whatever ``level`` is.
    """
    if log_format == "auto":
        log_format = "console" if _is_interactive() else "json"
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


def _is_interactive() -> bool:
    # honcho pipes its children's output to its own terminal. A child can detect honcho only by this
    # variable, and cannot detect whether honcho's own output is a terminal.
    return sys.stderr.isatty() or os.environ.get("HONCHO_PROCESS_NAME") is not None
