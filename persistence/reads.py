"""Reads of a tenant's sessions, for REST and resumption: asynchronous, with short deadlines."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import psycopg
import structlog
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from persistence import segments, speakers
from persistence.connections import OPTIONS, AsyncDeadlineConnection, reason_of, warn_if_plain
from persistence.history import HistoryPage, HistoryQuery, page_of
from wire.records import DEFAULT_TENANT

CONNECTIONS_MAX = 4
CONNECT_TIMEOUT_S = 2.0
"""Limit for a connection from the pool. libpq treats values below 2 s as 2 s."""
READ_TIMEOUT_S = 2.0
FIRST_PING_S = 3.0
"""From the start to a read that shows whether the database is available, and until the next one."""
RECONNECT_TIMEOUT_S = 2.0
"""The pool stops reconnecting after this time. The next read makes it try again."""
CLOSE_TIMEOUT_S = 1.0
TOTALS_KEPT_S = 10.0
"""Figures over all sessions, which take long in a large database, are kept for this time."""
SESSION_ROWS_MAX = 100_000
"""Most segments, and most chunks, in one answer: hours of audio. Further ones are left out."""

Row: TypeAlias = dict[str, Any]
Connection: TypeAlias = AsyncDeadlineConnection[Row]
T = TypeVar("T")

_ISO = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
# Gateways may be newer than persistence, which migrates the database: without the column, ``model``
# is that of ``_BEFORE_MODELS``.
_MODEL = "(SELECT model FROM asr_sessions AS own WHERE own.id = s.id) AS model"
_BEFORE_MODELS = "(SELECT ''::text AS model) AS before_models"
# The row of a session that has not finished holds no counts.
_SESSION_COLUMNS = f"""
s.id AS session_id, s.user_id, s.status, {_MODEL},
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
_OWN = "s.tenant = %(tenant)s"
"""Sessions of the tenant that asks."""
_OWN_BEFORE_TENANTS = f"%(tenant)s = '{DEFAULT_TENANT}'"
"""The same if persistence, which migrates the database, is of a release without tenants."""
_PING = "SELECT FROM asr_sessions LIMIT 1"
_VISIBLE = "s.status <> 'deleted'"
"""Sessions that a client may see."""
_TOTAL = """
SELECT count(*) AS total
FROM (SELECT FROM asr_sessions s WHERE {where} LIMIT %(total_max)s) AS found
"""
_PAGE = """
SELECT s.* FROM asr_sessions s WHERE {where}
ORDER BY s.created_at DESC, s.id LIMIT %(limit)s + 1 OFFSET %(offset)s
"""
# The preview of a session without a stored text is taken from its first segments.
_HISTORY = f"""
SELECT found.* FROM (
    SELECT {_SESSION_COLUMNS}, CASE WHEN %(texts)s THEN coalesce(s.text, '') END AS text,
           (extract(epoch FROM s.created_at) * 1000000)::bigint AS created_us,
           begins.at AS preview_at, substr(whole.text, begins.at, %(preview_chars)s + 1) AS preview,
           sum(octet_length(coalesce(s.text, ''))) OVER (
               ORDER BY s.created_at DESC, s.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ) AS bytes_before,
           count(*) OVER () AS rows_found
    FROM ({_PAGE}) AS s, {_BEFORE_MODELS},
    LATERAL (SELECT coalesce(nullif(s.text, ''), (
        SELECT string_agg(first.text, ' ') FROM (
            SELECT g.text FROM asr_segments g WHERE g.session_id = s.id AND g.text <> ''
            ORDER BY g.segment_index LIMIT %(preview_segments)s) AS first), '')) AS whole (text),
    LATERAL (SELECT greatest(1, strpos(lower(whole.text), %(preview_word)s)
                                - %(preview_before)s)) AS begins (at)
) AS found
WHERE NOT %(texts)s OR coalesce(bytes_before, 0) < %(text_bytes)s
ORDER BY created_us DESC, session_id
"""
_SESSION = f"""
SELECT {_SESSION_COLUMNS}, coalesce(s.text, '') AS text FROM asr_sessions s, {_BEFORE_MODELS}
WHERE s.id = %(session_id)s AND {_VISIBLE} AND {{own}}
"""
_CHUNKS = f"""
SELECT chunk_index, byte_count AS bytes, offset_ms, duration_ms,
       {_ISO.format("received_at")} AS received_at
FROM asr_chunks WHERE session_id = %s ORDER BY chunk_index LIMIT %s
"""
_TOTALS = """
SELECT count(*) AS sessions, coalesce(sum(duration_ms), 0)::float8 / 1000 AS audio_s,
       pg_database_size(current_database()) AS database_bytes
FROM asr_sessions WHERE status <> 'deleted'
"""
_EXISTS = "SELECT FROM asr_sessions WHERE id = %s"
_STATUS = "SELECT status FROM asr_sessions s WHERE id = %(session_id)s AND {own}"
_RESUME_STATE = f"""
SELECT id AS session_id, status, started, generation, gateway_id, resume_token_hash, {_MODEL}, text,
       duration_ms, chunk_count, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       coalesce(segment_count, 0) <= (SELECT count(*) FROM asr_segments
                                      WHERE session_id = s.id AND NOT provisional)
       AS has_all_segments
FROM asr_sessions s, {_BEFORE_MODELS}
WHERE id = %(session_id)s AND ({{own}} OR NOT started)
"""


class _PoolConnection(AsyncDeadlineConnection[Row]):
    """Reports the outcome of each attempt. The pool only logs its errors, all of them."""

    @classmethod
    async def connect(  # type: ignore[override]
        cls, conninfo: str, *, attempted: Callable[[psycopg.Error | None], None], **options: Any
    ) -> Connection:
        try:
            made = await super().connect(conninfo, **options)
        except psycopg.Error as error:
            attempted(error)
            raise
        attempted(None)
        return made


class StoreUnavailable(Exception):  # noqa: N818 - a state of the world, not an error of the caller
    """The database does not answer, or has no tables yet. Try again later."""


class SessionReader:
    """Reads sessions through a small pool of connections.

    Call ``open``, which does not wait for the database, and ``close`` on the event loop that uses
    it. All reads but ``ping`` and ``totals`` raise ``StoreUnavailable`` if there is no answer
    within ``READ_TIMEOUT_S``.
    """

    def __init__(self, conninfo: str) -> None:
        self._available: bool | None = None
        self._connect_error: psycopg.Error | None = None
        self._first_ping: asyncio.Task[None] | None = None
        self._totals: Row | None = None
        self._totals_until_s = float("-inf")
        self._reading: set[asyncio.Future[Any]] = set()
        self._log = structlog.get_logger()
        # The pool logs every failed attempt; this class logs changes of state.
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            conninfo,
            connection_class=_PoolConnection,
            kwargs={
                **OPTIONS,
                "attempted": functools.partial(setattr, self, "_connect_error"),
                "row_factory": dict_row,
                "connect_timeout": int(CONNECT_TIMEOUT_S),
            },
            min_size=1,
            max_size=CONNECTIONS_MAX,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
            configure=_warn_if_plain,
            name="reads",
            open=False,
        )

    async def open(self) -> None:
        await self._pool.open(wait=False)
        self._first_ping = asyncio.create_task(self._ping_until_available())

    async def _ping_until_available(self) -> None:
        """Log a database that is not available, although nobody reads."""
        available = False
        while not available:
            await asyncio.sleep(FIRST_PING_S)
            available = await self.ping()

    async def close(self) -> None:
        if self._first_ping is not None:
            self._first_ping.cancel()
        if self._reading:
            await asyncio.wait(self._reading, timeout=CLOSE_TIMEOUT_S)
        await self._pool.close(timeout=CLOSE_TIMEOUT_S)
        if self._reading:  # Without a pool they fail at once.
            await asyncio.wait(self._reading, timeout=CLOSE_TIMEOUT_S)

    async def ping(self) -> bool:
        """Return whether the database answers and has its tables."""
        try:
            await self._read(lambda connection: _rows(connection, _PING))
        except StoreUnavailable:
            return False
        return True

    async def history(self, wanted: HistoryQuery) -> HistoryPage:
        """Return a page of the sessions that are ``wanted``, newest first."""
        conditions, parameters = wanted.conditions()
        after, position = wanted.position()

        async def read(connection: Connection, own: str) -> HistoryPage:
            where = " AND ".join([_VISIBLE, own, *conditions])
            page = " AND ".join([where, *after])
            (total,) = await _rows(connection, _TOTAL.format(where=where), parameters)
            rows = await _rows(connection, _HISTORY.format(where=page), parameters | position)
            return page_of(rows, int(total["total"]), wanted.limit)

        return await self._read_own(read)

    async def session(self, session_id: str, tenant: str, *, chunks: bool = False) -> Row | None:
        """Return the session with its segments (as ``Result``), their speakers by index, and
        its ``chunks`` if asked for; None: unknown, deleted, or of another tenant."""

        async def read(connection: Connection, own: str) -> Row | None:
            found = await _session(connection, _SESSION.format(own=own), session_id, tenant)
            if found is not None and chunks:
                limited = session_id, SESSION_ROWS_MAX
                found["chunks"] = await _rows(connection, _CHUNKS, limited)
            return found

        return await self._read_own(read) if "\0" not in session_id else None

    async def owner_state(self, session_id: str, tenant: str) -> Row | None:
        """Return the part of ``resume_state`` that says which gateway has the session."""
        return await self._row(_RESUME_STATE, session_id, tenant)

    async def resume_state(self, session_id: str, tenant: str) -> Row | None:
        """Return the rows from which a gateway resumes the session, centroids of its speakers
        included; None: unknown, or of another tenant. A session whose start is not stored belongs
        to nobody."""

        async def read(connection: Connection, own: str) -> Row | None:
            found = await _session(connection, _RESUME_STATE.format(own=own), session_id, tenant)
            if found is not None:
                rows = await _added(connection, speakers.SELECT_CENTROIDS, (session_id,))
                found["centroids"] = speakers.centroids_of(rows[0]) if rows else ()
            return found

        return await self._read_own(read) if "\0" not in session_id else None

    async def exists(self, session_id: str) -> bool:
        """Return whether the id is taken, by whatever tenant."""
        if "\0" in session_id:
            return False
        return bool(await self._read(lambda connection: _rows(connection, _EXISTS, (session_id,))))

    async def status(self, session_id: str, tenant: str) -> str | None:
        """Return the session's status; None: unknown (maybe deleted), or of another tenant."""
        found = await self._row(_STATUS, session_id, tenant)
        return None if found is None else found["status"]

    async def totals(self) -> Row | None:
        """Return ``sessions``, ``audio_s`` of the finished ones, and ``database_bytes``, up to
        ``TOTALS_KEPT_S`` old; None: there was no answer."""
        now_s = time.monotonic()
        if now_s >= self._totals_until_s:
            # Before the query, so that further callers do not wait for a silent database, too.
            self._totals_until_s = now_s + TOTALS_KEPT_S
            try:
                (self._totals,) = await self._read(lambda connection: _rows(connection, _TOTALS))
            except StoreUnavailable:
                self._totals = None
        return self._totals

    async def _row(self, query: str, session_id: str, tenant: str) -> Row | None:
        if "\0" in session_id:
            return None
        parameters = {"session_id": session_id, "tenant": tenant}
        found = await self._read_own(
            lambda connection, own: _rows(connection, query.format(own=own), parameters)
        )
        return found[0] if found else None

    async def _read_own(self, read: Callable[[Connection, str], Awaitable[T]]) -> T:
        """Call ``read`` with the condition that a session is the tenant's."""

        async def either(connection: Connection) -> T:
            try:
                return await read(connection, _OWN)
            except psycopg.errors.UndefinedColumn:
                return await read(connection, _OWN_BEFORE_TENANTS)

        return await self._read(either)

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
        reason = "lost connections"
        if error is not None:
            reason = reason_of(error) or type(error).__name__
        if isinstance(error, PoolTimeout) and self._connect_error is not None:
            reason = " ".join(str(self._connect_error).split())  # It holds no password.
        self._note(False, reason)
        return StoreUnavailable("the database does not answer")

    def _note(self, available: bool, reason: str = "") -> None:
        if available and self._available is False:
            self._log.info("store_available")
        elif not available and self._available is not False:
            self._log.warning("store_unavailable", reason=reason)
        self._available = available


async def _warn_if_plain(connection: Connection) -> None:
    warn_if_plain(connection)


async def _rows(
    connection: Connection, query: str, parameters: Sequence[object] | Mapping[str, object] = ()
) -> list[Row]:
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall()


async def _session(connection: Connection, query: str, session_id: str, tenant: str) -> Row | None:
    """Return the row that ``query`` finds, with the session's segments."""
    parameters = {"session_id": session_id, "tenant": tenant}
    limited = session_id, SESSION_ROWS_MAX
    for row in await _rows(connection, query, parameters):
        (found,) = await _rows(connection, segments.SELECT, limited)
        labels = await _added(connection, speakers.SELECT_LABELS, limited)
        return {
            **row,
            "segments": segments.results_of(found["results"]),
            "speakers": {each["segment_index"]: each["speaker"] for each in labels},
        }
    return None


async def _added(connection: Connection, query: str, parameters: Sequence[object]) -> list[Row]:
    """Return rows of a table that is missing in the schema of the release before."""
    try:
        return await _rows(connection, query, parameters)
    except psycopg.errors.UndefinedTable:
        return []
