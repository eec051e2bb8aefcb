"""Errors of ``accept`` in a gateway without a free descriptor.

asyncio logs each connection that waits in the backlog, with a traceback, and again every second: a
hundred megabytes in half a minute. This counts them and logs one line a second. The connections
stay in the backlog, and are accepted when descriptors are free again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from gateway.telemetry.metrics import ACCEPT_FAILURES

LOG_INTERVAL_S = 1.0
_MESSAGE = "socket.accept() out of system resource"
"""Message of ``asyncio.selector_events``. tests/gateway/web/test_accept_errors.py fails if it
changes."""


class AcceptErrors:
    """An exception handler of an event loop. It passes every other error to the default handler."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._log_due_s = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") != _MESSAGE:
            loop.default_exception_handler(context)
            return
        ACCEPT_FAILURES.inc()
        if loop.time() >= self._log_due_s:
            self._log_due_s = loop.time() + LOG_INTERVAL_S
            self._log.error("connections_not_accepted", error=str(context.get("exception")))
