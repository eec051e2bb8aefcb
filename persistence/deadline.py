"""Database connections with a client-side deadline.

A PostgreSQL that is stopped or unreachable enforces no ``statement_timeout`` and acknowledges no
cancellation, and libpq's ``tcp_user_timeout`` and keepalives notice neither a stopped process nor a
Unix socket's other end. psycopg passes every round trip through ``Connection.wait``, which takes a
timeout but is never given one (psycopg issue 1371). The classes here give it one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import Row

RV = TypeVar("RV")
WAKE_INTERVAL_S = 0.1
"""psycopg's own: how often a waiting call looks for signals."""


class _Deadline:
    _due_s = math.inf

    @contextmanager
    def deadline(self, timeout_s: float) -> Iterator[None]:
        """Limit everything that the block does on this connection to ``timeout_s`` together.

        Raises:
            psycopg.errors.ConnectionTimeout: the time is over; the connection is closed.
        """
        self._due_s = time.monotonic() + timeout_s
        try:
            yield
        finally:
            self._due_s = math.inf

    def _left_s(self, timeout_s: float | None) -> float | None:
        left_s = min(self._due_s - time.monotonic(), math.inf if timeout_s is None else timeout_s)
        return None if left_s == math.inf else max(0.0, left_s)

    def _is_over(self) -> bool:
        return time.monotonic() >= self._due_s


class DeadlineConnection(_Deadline, psycopg.Connection[Any]):
    """A connection with ``deadline``."""

    def wait(
        self, gen: PQGen[RV], interval: float = WAKE_INTERVAL_S, timeout: float | None = None
    ) -> RV:
        try:
            return super().wait(gen, interval, self._left_s(timeout))
        except psycopg.OperationalError:
            if not self._is_over():
                raise
            # In the middle of an answer it can be used for nothing else.
            self.close()
            raise psycopg.errors.ConnectionTimeout("the database does not answer") from None


class AsyncDeadlineConnection(_Deadline, psycopg.AsyncConnection[Row]):
    """The same for asyncio."""

    async def wait(
        self,
        gen: PQGen[RV],
        interval: float = WAKE_INTERVAL_S,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's signature
    ) -> RV:
        try:
            return await super().wait(gen, interval, self._left_s(timeout))
        except psycopg.OperationalError:
            if not self._is_over():
                raise
            await self.close()
            raise psycopg.errors.ConnectionTimeout("the database does not answer") from None
