"""The database of a system under test: creates, drops, and reads it."""

from __future__ import annotations

import contextlib
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import psycopg

CONNECT_TIMEOUT_S: Final = 3


@dataclass(frozen=True, slots=True)
class StoredSegment:
    segment_index: int
    text: str | None


@dataclass(frozen=True, slots=True)
class StoredSession:
    """The rows of a session."""

    status: str
    text: str | None
    segments: tuple[StoredSegment, ...]
    chunks: int
    """Rows of ``asr_chunks``."""


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection that commits each statement."""
    return psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)


def create(server_url: str, prefix: str = "test") -> str:
    """Create an empty database; return its URL."""
    name = f"{prefix}_{uuid.uuid4().hex}"
    with connect(server_url) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()


@contextlib.contextmanager
def temporary(server_url: str) -> Iterator[str]:
    """The URL of an empty database, dropped at the end."""
    url = create(server_url)
    try:
        yield url
    finally:
        with connect(server_url) as connection:
            connection.execute(f'DROP DATABASE "{urlsplit(url).path[1:]}" WITH (FORCE)')


def is_completed(url: str, session_id: str) -> bool | None:
    """Whether the session's row is complete now; None if the database does not answer."""
    try:
        with connect(url) as database:
            row = database.execute(
                "SELECT status FROM asr_sessions WHERE id = %s", [session_id]
            ).fetchone()
    except psycopg.Error:
        return None
    return row is not None and row[0] == "completed"


def stored_sessions(url: str, session_ids: Iterable[str]) -> dict[str, StoredSession]:
    """The rows of these sessions, by id; a session without a row is missing."""
    ids = list(session_ids)
    segments: defaultdict[str, list[StoredSegment]] = defaultdict(list)
    with connect(url) as database:
        for session_id, index, text in database.execute(
            "SELECT session_id, segment_index, text FROM asr_segments"
            " WHERE session_id = ANY (%s) AND NOT provisional",
            [ids],
        ):
            segment = StoredSegment(int(str(index)), None if text is None else str(text))
            segments[str(session_id)].append(segment)
        rows = database.execute(
            "SELECT id, status, text, (SELECT count(*) FROM asr_chunks WHERE session_id = id)"
            " FROM asr_sessions WHERE id = ANY (%s)",
            [ids],
        ).fetchall()
    return {
        str(session_id): StoredSession(
            str(status),
            None if text is None else str(text),
            tuple(segments[str(session_id)]),
            int(str(chunks)),
        )
        for session_id, status, text, chunks in rows
    }
