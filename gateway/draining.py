"""What a gateway does between SIGTERM and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from gateway.server import Server
from gateway.session.states import State
from runtime import lifecycle

DRAIN_POLL_S = 0.05
DRAIN_SESSIONS_S = lifecycle.DRAIN_S - 2.0
"""After SIGTERM sessions may finish for so long; the rest is closed with 1012."""
DRAIN_RECORDS_S = 0.7
"""For what is left to be recognised and stored after that; then it is written to disk."""


async def drain(server: Server) -> None:
    """Refuse new sessions, let the running ones finish, send the clients of the rest elsewhere
    (1012, "service restart"), and keep on disk what is not stored."""
    structlog.get_logger().info("draining", sessions=len(server.sessions))
    server.gate.draining = True
    # A session without its client waits for nobody who could still come.
    await _until(lambda: not any(h.attached for h in server.sessions.values()), DRAIN_SESSIONS_S)
    for runner in list(server.sessions.values()):
        runner.interrupt()
    await _until(lambda: not server.sessions and not len(server.outbox), DRAIN_RECORDS_S)
    # Those that have begun meanwhile, on connections that were there before.
    for runner in list(server.sessions.values()):
        if runner.session.state is State.ACTIVE:
            runner.interrupt()
    server.spool.write(server.outbox.records())


async def _until(condition: Callable[[], bool], limit_s: float) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(DRAIN_POLL_S)
