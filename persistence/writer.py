"""The thread that writes to PostgreSQL: one batch at a time, retried until it is committed."""

from __future__ import annotations

import queue
import random
import socket
import threading
import time
from typing import Any, TypeAlias

import psycopg
import structlog

from persistence import chores, metrics, store
from persistence.batch_buffer import Batch, Entry
from persistence.chores import Chore
from persistence.connections import OPTIONS, DeadlineConnection, reason_of, warn_if_plain
from persistence.migrate import SchemaTooNewError, migrate
from runtime.backoff import Backoff

CONNECT_TIMEOUT_S = 5
MIGRATE_TIMEOUT_S = 300.0
RETRY_INITIAL_S = 0.1
RETRY_MAX_S = 3.0

Written: TypeAlias = tuple[Batch, list[Entry]]
"""A committed batch, and those of its entries that were dropped: of an older generation."""

_log = structlog.get_logger()


class Writer:
    """Owns the database connection. Call ``submit`` only if ``idle``; call ``committed`` when
    ``wake`` becomes readable. While the database is unavailable, the writer keeps its batch and
    retries with backoff, without an end."""

    def __init__(
        self,
        conninfo: str,
        *,
        write_timeout_s: float,
        lost_after_s: float,
        retention_days: float,
    ) -> None:
        """``retention_days``: sessions are deleted this long after their start; 0: never."""
        self.idle = True
        self._conninfo = conninfo
        self._write_timeout_s = write_timeout_s
        self._chores = chores.all_chores(lost_after_s, retention_days)
        self._inbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Written] = queue.SimpleQueue()
        self.wake, self._waker = socket.socketpair()
        for end in (self.wake, self._waker):
            end.setblocking(False)
        self._stopping = threading.Event()
        self._connection: DeadlineConnection | None = None
        self._problem: dict[str, str | None] | None = {"error": "not tried yet"}
        self._backoff = Backoff(RETRY_INITIAL_S, RETRY_MAX_S, random.Random())
        # A daemon, so that an unavailable database does not delay the end of the process.
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False after ``stop``, or after an unexpected exception in the thread."""
        return self._thread.is_alive()

    def submit(self, batch: Batch) -> None:
        assert self.idle, "one batch at a time"
        self.idle = False
        self._inbox.put(batch)

    def committed(self) -> Written | None:
        """Return the submitted batch if it is committed, else None. Never waits."""
        try:
            self.wake.recv(64)
        except BlockingIOError:
            return None
        self.idle = True
        return self._outbox.get_nowait()

    def stop(self, timeout_s: float) -> bool:
        """End the thread; return whether it ended in time. A batch that is not committed is
        discarded, and gateways send it again."""
        self._stopping.set()
        self._inbox.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self.wake.close()
        self._waker.close()
        return True

    # ----------------------------------------------------------------- on the writer's thread

    def _run(self) -> None:
        try:
            # Before the first batch arrives, because the gateways' reads need the tables.
            self._until_done(None)
            while True:
                for chore in self._chores:
                    self._do(chore)
                try:
                    due_s = min(chore.due_s for chore in self._chores)
                    idle_s = min(chores.EVERY_S, max(chores.AGAIN_S, due_s - time.monotonic()))
                    batch = self._inbox.get(timeout=idle_s)
                except queue.Empty:
                    continue
                if batch is None:
                    return
                superseded = self._until_done(batch)
                if superseded is not None:
                    self._outbox.put((batch, superseded))
                    self._waker.send(b"\0")
        finally:
            self._disconnect()

    def _do(self, chore: Chore) -> None:
        """Do some of the work if it is due. After an error, the next batch reconnects."""
        if self._connection is None or time.monotonic() < chore.due_s:
            return
        try:
            with self._connection.deadline(self._write_timeout_s):
                chore.turn(self._connection)
        except psycopg.Error as error:
            self._failed(error)

    def _until_done(self, batch: Batch | None) -> list[Entry] | None:
        """Migrate and write, until it succeeds; return as ``store.write``. None: stopped."""
        superseded: list[Entry] = []
        while not self._stopping.is_set():
            try:
                connection = self._connect()
                if batch is not None:
                    superseded = self._write(connection, batch)
            except (psycopg.Error, SchemaTooNewError) as error:
                self._failed(error)
                self._stopping.wait(self._backoff.next_delay_s())
                continue
            self._note_available()
            return superseded
        return None

    def _connect(self) -> DeadlineConnection:
        if self._connection is not None:
            return self._connection
        connection = DeadlineConnection.connect(
            self._conninfo,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="asr-persistence",
            **OPTIONS,
        )
        warn_if_plain(connection)
        try:
            require_unicode(connection)
            with connection.deadline(MIGRATE_TIMEOUT_S):
                applied = migrate(connection)
                limit_server_side(connection, self._write_timeout_s)
        except BaseException:
            connection.close()
            raise
        if applied:
            _log.info("schema_migrated", applied=applied)
        self._connection = connection
        return connection

    def _write(self, connection: DeadlineConnection, batch: Batch) -> list[Entry]:
        started_s = time.monotonic()
        with connection.deadline(self._write_timeout_s):
            superseded = store.write(connection, batch)
        metrics.BATCH_SECONDS.observe(time.monotonic() - started_s)
        metrics.BATCHES.labels("committed").inc()
        for entry in batch:
            metrics.ROWS.labels(type(entry.body).__name__).inc(entry.rows)
        return superseded

    def _failed(self, error: Exception) -> None:
        metrics.BATCHES.labels("failed").inc()
        # The message of a failed connection is for the operator. That of a failed write may quote
        # rows.
        connected = self._connection is not None
        reason = reason_of(error) if connected else " ".join(str(error).split())
        sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
        self._disconnect()
        problem = {"error": type(error).__name__, "sqlstate": sqlstate, "reason": reason}
        if problem != self._problem:
            _log.warning("database_unavailable", **problem)
        self._problem = problem
        metrics.DATABASE_UP.set(0)

    def _note_available(self) -> None:
        self._backoff.reset()
        if self._problem is not None:
            _log.info("database_available")
        self._problem = None
        metrics.DATABASE_UP.set(1)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def require_unicode(connection: psycopg.Connection[Any]) -> None:
    """Texts that the database's encoding cannot hold would be refused row by row, for good.

    Raises:
        psycopg.NotSupportedError: with a hint. A pooler may not report the encoding, which is then
            accepted.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ("UTF8", "SQL_ASCII", None):
        raise psycopg.NotSupportedError(
            f"the database has the encoding {encoding}: create it with ENCODING 'UTF8'"
        )


def limit_server_side(connection: psycopg.Connection[Any], write_timeout_s: float) -> None:
    """Have the server end a transaction whose client is unreachable. Otherwise its locks could
    block every retry for hours. A limit of the role on the time between transactions does not
    count: after each pause a connection would be lost."""
    # Longer than our own deadline, so that the client decides first.
    limit_ms = round(2_000 * write_timeout_s)
    for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(f"SET {name} = {limit_ms}")
    connection.execute("SET idle_session_timeout = 0")
