"""Drain of a gateway: from SIGTERM to its exit."""

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
"""Time for sessions to finish after SIGTERM. The others are closed with 1012."""
DRAIN_RECORDS_S = 0.7
"""Further time to recognise and store pending segments. The rest is written to the spool."""


async def drain(server: Server) -> None:
    """Refuse new sessions, let running ones finish, close the others with 1012 ("service restart"),
    and write unconfirmed records to the spool."""
    structlog.get_logger().info("draining", sessions=len(server.sessions))
    server.gate.draining = True
    # Sessions without a client are not included: their clients cannot return to this gateway.
    await _until(
        lambda: not any(runner.attached for runner in server.sessions.values()), DRAIN_SESSIONS_S
    )
    for runner in list(server.sessions.values()):
        runner.interrupt()
    await _until(lambda: not server.sessions and not len(server.outbox), DRAIN_RECORDS_S)
    # Sessions that started in the meantime, on connections that already existed.
    for runner in list(server.sessions.values()):
        if runner.session.state is State.ACTIVE:
            runner.interrupt()
    server.spool.write(server.outbox.records())


async def _until(condition: Callable[[], bool], limit_s: float) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(DRAIN_POLL_S)
