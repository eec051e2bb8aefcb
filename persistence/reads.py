"""Reads of stored sessions, for REST and resumption: asynchronous, and with short deadlines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import psycopg
import structlog
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from persistence import segments, speakers
from persistence.deadline import AsyncDeadlineConnection

CONNECTIONS_MAX = 4
CONNECT_TIMEOUT_S = 2.0
"""To get a connection from the pool. libpq treats values below 2 s as 2 s."""
READ_TIMEOUT_S = 2.0
RECONNECT_TIMEOUT_S = 2.0
"""The pool stops reconnecting after this time. The next read makes it try again."""
CLOSE_TIMEOUT_S = 1.0
HISTORY_ROWS_MAX = 1_000
SESSION_ROWS_MAX = 100_000
"""Most segments, and most chunks, in one answer: hours of audio. Further ones are left out."""

Row: TypeAlias = dict[str, Any]
Connection: TypeAlias = AsyncDeadlineConnection[Row]
T = TypeVar("T")

_ISO = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
# The row of a session that has not finished holds no counts.
# Gateways may be newer than persistence, which migrates the database: without the column, ``model``
# is that of ``_BEFORE_MODELS``.
_MODEL = "(SELECT model FROM asr_sessions AS own WHERE own.id = s.id) AS model"
_BEFORE_MODELS = "(SELECT ''::text AS model) AS before_models"
_SESSION_COLUMNS = f"""
s.id AS session_id, s.user_id, s.status, {_MODEL}, coalesce(s.text, '') AS text,
coalesce(s.duration_ms, (SELECT max(c.offset_ms + c.duration_ms) FROM asr_chunks c
                         WHERE c.session_id = s.id), 0)::float8 / 1000 AS duration,
coalesce(s.chunk_count, (SELECT count(*) FROM asr_chunks c
                         WHERE c.session_id = s.id)) AS chunk_count,
coalesce(s.segment_count, (SELECT count(*) FROM asr_segments g
                           WHERE g.session_id = s.id)) AS segment_count,
CASE WHEN s.error_code IS NOT NULL
     THEN jsonb_build_object('code', s.error_code, 'message', s.error_message) END AS error,
{_ISO.format("s.created_at")} AS created_at,
{_ISO.format("s.completed_at")} AS completed_at
"""
_PING = "SELECT FROM asr_sessions LIMIT 1"
_TOTAL = "SELECT count(*) AS total FROM asr_sessions WHERE status <> 'deleted'"
_HISTORY = f"""
SELECT {_SESSION_COLUMNS} FROM asr_sessions s, {_BEFORE_MODELS} WHERE s.status <> 'deleted'
ORDER BY s.created_at DESC, s.id LIMIT %s
"""
_SESSION = f"""
SELECT {_SESSION_COLUMNS} FROM asr_sessions s, {_BEFORE_MODELS}
WHERE s.id = %s AND s.status <> 'deleted'
"""
_CHUNKS = f"""
SELECT chunk_index, byte_count AS bytes, offset_ms, duration_ms,
       {_ISO.format("received_at")} AS received_at
FROM asr_chunks WHERE session_id = %s ORDER BY chunk_index LIMIT %s
"""
_STATUS = "SELECT status FROM asr_sessions WHERE id = %s"
_RESUME_STATE = f"""
SELECT id AS session_id, status, started, generation, gateway_id, resume_token_hash, {_MODEL}, text,
       duration_ms, chunk_count, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       coalesce(segment_count, 0) <= (SELECT count(*) FROM asr_segments
                                      WHERE session_id = s.id AND NOT provisional)
       AS has_all_segments
FROM asr_sessions s, {_BEFORE_MODELS} WHERE id = %s
"""


class StoreUnavailable(Exception):  # noqa: N818 - a state of the world, not an error of the caller
    """The database does not answer, or has no tables yet. Try again later."""


class SessionReader:
    """Reads sessions through a small pool of connections.

    Call ``open`` and ``close`` on the event loop that uses it. ``open`` does not wait for the
    database, which may become available or unavailable at any time.
    """

    def __init__(self, conninfo: str) -> None:
        self._available: bool | None = None
        self._reading: set[asyncio.Future[Any]] = set()
        self._log = structlog.get_logger()
        # The pool logs every failed attempt; this class logs changes of state.
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            conninfo,
            connection_class=AsyncDeadlineConnection,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "connect_timeout": int(CONNECT_TIMEOUT_S),
                # PostgreSQL refuses a prepared SELECT * once a migration has added a column.
                "prepare_threshold": None,
            },
            min_size=1,
            max_size=CONNECTIONS_MAX,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
            name="reads",
            open=False,
        )

    async def open(self) -> None:
        await self._pool.open(wait=False)

    async def close(self) -> None:
        if self._reading:
            await asyncio.wait(self._reading, timeout=CLOSE_TIMEOUT_S)
        await self._pool.close(timeout=CLOSE_TIMEOUT_S)

    async def ping(self) -> bool:
        """Return whether the database answers and has its tables."""
        try:
            await self._read(lambda connection: _rows(connection, _PING))
        except StoreUnavailable:
            return False
        return True

    async def history(self, limit: int) -> tuple[int, list[Row]]:
        """Return the number of stored sessions, and the newest ``limit`` of them, at most
        ``HISTORY_ROWS_MAX``.

        Raises:
            StoreUnavailable: if there is no answer within ``READ_TIMEOUT_S``.
        """

        async def read(connection: Connection) -> tuple[int, list[Row]]:
            (total,) = await _rows(connection, _TOTAL)
            records = await _rows(connection, _HISTORY, min(limit, HISTORY_ROWS_MAX))
            return int(total["total"]), records

        return await self._read(read)

    async def session(self, session_id: str) -> Row | None:
        """Return the session with its segments (as ``Result``), their speakers by index, and
        chunks; None: unknown or deleted.

        Raises:
            StoreUnavailable: if there is no answer within ``READ_TIMEOUT_S``.
        """

        async def read(connection: Connection) -> Row | None:
            found = await _session(connection, _SESSION, session_id)
            if found is not None:
                found["chunks"] = await _rows(connection, _CHUNKS, session_id, SESSION_ROWS_MAX)
            return found

        return await self._read(read) if "\0" not in session_id else None

    async def resume_state(self, session_id: str) -> Row | None:
        """Return what a gateway needs to resume the session, centroids of its speakers included;
        None: unknown.

        Raises:
            StoreUnavailable: if there is no answer within ``READ_TIMEOUT_S``.
        """
        if "\0" in session_id:
            return None

        async def read(connection: Connection) -> Row | None:
            found = await _session(connection, _RESUME_STATE, session_id)
            if found is not None:
                rows = await _added(connection, speakers.SELECT_CENTROIDS, session_id)
                found["centroids"] = speakers.centroids_of(rows[0]) if rows else ()
            return found

        return await self._read(read)

    async def status(self, session_id: str) -> str | None:
        """Return the session's status, which can be ``deleted``; None: unknown.

        Raises:
            StoreUnavailable: if there is no answer within ``READ_TIMEOUT_S``.
        """
        if "\0" in session_id:
            return None
        found = await self._read(lambda connection: _rows(connection, _STATUS, session_id))
        return found[0]["status"] if found else None

    async def _read(self, read: Callable[[Connection], Awaitable[T]]) -> T:
        # In a task of its own: a cancelled psycopg call waits until the server confirms. A
        # cancelled caller returns at once instead, and the task ends after READ_TIMEOUT_S.
        task = asyncio.ensure_future(self._try_connections(read))
        self._reading.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._reading.discard(task)
        if not task.cancelled():
            task.exception()  # Retrieved here, because a cancelled caller does not.

    async def _try_connections(self, read: Callable[[Connection], Awaitable[T]]) -> T:
        # After a restart of the database every pooled connection is dead, and each fails at once.
        for _ in range(CONNECTIONS_MAX + 1):
            try:
                async with self._pool.connection() as connection:
                    # Not asyncio.timeout: a cancelled psycopg call waits up to 10 s for the server.
                    with connection.deadline(READ_TIMEOUT_S):
                        answer = await read(connection)
            except psycopg.Error as error:
                late = isinstance(error, PoolTimeout | psycopg.errors.ConnectionTimeout)
                if late or not isinstance(error, psycopg.OperationalError):
                    raise self._unavailable(error) from error
            else:
                self._note(True)
                return answer
        raise self._unavailable(None)

    def _unavailable(self, error: psycopg.Error | None) -> StoreUnavailable:
        self._note(False, type(error).__name__ if error else "lost connections")
        return StoreUnavailable("the database does not answer")

    def _note(self, available: bool, reason: str = "") -> None:
        if available and self._available is False:
            self._log.info("store_available")
        elif not available and self._available is not False:
            self._log.warning("store_unavailable", reason=reason)
        self._available = available


async def _rows(connection: Connection, query: str, *parameters: object) -> list[Row]:
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall()


async def _session(connection: Connection, query: str, session_id: str) -> Row | None:
    """Return the row that ``query`` finds, with the session's segments."""
    for row in await _rows(connection, query, session_id):
        found = await _rows(connection, segments.SELECT, session_id, SESSION_ROWS_MAX)
        labels = await _added(connection, speakers.SELECT_LABELS, session_id, SESSION_ROWS_MAX)
        return {
            **row,
            "segments": [segments.result_of(each) for each in found],
            "speakers": {each["segment_index"]: each["speaker"] for each in labels},
        }
    return None


async def _added(connection: Connection, query: str, *parameters: object) -> list[Row]:
    """Rows of a table that the schema of the release before does not have."""
    try:
        return await _rows(connection, query, *parameters)
    except psycopg.errors.UndefinedTable:
        return []
