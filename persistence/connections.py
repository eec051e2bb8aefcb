"""Database connections with a client-side deadline, and a warning about unencrypted ones.

A PostgreSQL that is stopped or unreachable enforces no ``statement_timeout`` and acknowledges no
cancellation, and libpq's ``tcp_user_timeout`` and keepalives notice neither a stopped process nor a
Unix socket's other end. psycopg passes every round trip through ``Connection.wait``, which takes a
timeout but is never given one (psycopg issue 1371). The classes here give it one.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn
from psycopg.rows import Row

from runtime.endpoints import is_loopback

RV = TypeVar("RV")
OPTIONS: Final[dict[str, Any]] = {
    "autocommit": True,
    # A pooler such as PgBouncer in transaction mode may change the server connection, and with it
    # the prepared statements, between two transactions. PostgreSQL refuses a prepared SELECT * once
    # a migration has added a column.
    "prepare_threshold": None,
    "client_encoding": "UTF8",  # Whatever the role, the environment or the URL says.
}
WAKE_INTERVAL_S = 0.1
"""psycopg's own: how often a waiting call looks for signals."""


SQLSTATES_WITHOUT_ROWS: Final = ("25", "42", "53", "55", "57", "58")
"""Classes of errors whose messages name states, objects and resources, and quote no row."""


def reason_of(error: Exception) -> str:
    """Return the message of a failed statement on one line; empty if it may quote a row."""
    if not isinstance(error, psycopg.Error) or not error.sqlstate:
        return ""
    shown = error.sqlstate.startswith(SQLSTATES_WITHOUT_ROWS)
    return " ".join((error.diag.message_primary or "").split()) if shown else ""


class _Deadline:
    pgconn: PGconn
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

    @contextmanager
    def _limited(self, timeout_s: float | None) -> Iterator[float | None]:
        """Yield the time that a round trip may take; translate the error of one that is late."""
        left_s = min(self._due_s - time.monotonic(), math.inf if timeout_s is None else timeout_s)
        try:
            yield None if left_s == math.inf else max(0.0, left_s)
        except psycopg.OperationalError:
            if time.monotonic() < self._due_s:
                raise
            # In the middle of an answer it can be used for nothing else.
            self.pgconn.finish()
            raise psycopg.errors.ConnectionTimeout("the database does not answer") from None


class DeadlineConnection(_Deadline, psycopg.Connection[Any]):
    """A connection with ``deadline``."""

    def wait(
        self, gen: PQGen[RV], interval: float = WAKE_INTERVAL_S, timeout: float | None = None
    ) -> RV:
        with self._limited(timeout) as left_s:
            return super().wait(gen, interval, left_s)


class AsyncDeadlineConnection(_Deadline, psycopg.AsyncConnection[Row]):
    """The same for asyncio."""

    async def wait(
        self,
        gen: PQGen[RV],
        interval: float = WAKE_INTERVAL_S,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's signature
    ) -> RV:
        with self._limited(timeout) as left_s:
            return await super().wait(gen, interval, left_s)


def warn_if_plain(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Log once for each server of another host whose connection is not encrypted."""
    if not connection.pgconn.ssl_in_use:
        info = connection.info
        _warn(info.hostaddr or info.host)


@functools.cache
def _warn(host: str) -> None:
    if host and not host.startswith(("/", "@")) and not is_loopback(host):
        advice = "add sslmode=verify-full&sslrootcert=… to DATABASE_URL"
        structlog.get_logger().warning("database_link_plain", host=host, advice=advice)
