"""Brings the database's schema to this program's version: numbered SQL files, each applied once.

Everything happens in one transaction under an advisory lock, so several processes may start at
the same moment, and a failed migration leaves nothing behind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

MIGRATIONS_DIR = Path(__file__).parent / "migrations"
ADVISORY_LOCK_KEY = 0x4153_525F_4D49_4752
"""ASCII ``ASR_MIGR``; PostgreSQL's advisory locks are shared by all users of a database."""
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_VERSIONS_TABLE = """
CREATE TABLE asr_schema_versions (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class SchemaTooNewError(Exception):
    """The database was upgraded by a newer program than this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    version: int
    name: str
    sql: str


def load_migrations(folder: Path = MIGRATIONS_DIR) -> list[Migration]:
    """The migrations in ``folder``, ascending, from 1 without a gap."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        assert match is not None, f"{path.name}: not NNNN_name.sql"
        found.append(
            Migration(version=int(match[1]), name=path.stem, sql=path.read_text(encoding="utf-8"))
        )
    assert [m.version for m in found] == list(range(1, len(found) + 1)), "versions have a gap"
    return found


def migrate(
    connection: psycopg.Connection[Any], migrations: list[Migration] | None = None
) -> list[str]:
    """Apply what is missing. Returns the names of what was applied now.

    ``connection`` must not be in a transaction. A role that may not create tables is enough when
    there is nothing to apply.

    Raises:
        SchemaTooNewError: if the database is ahead of ``migrations``.
        psycopg.Error: whatever the database says; nothing is changed then.
    """
    known = load_migrations() if migrations is None else migrations
    applied = []
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK_KEY,))
        current = _current_version(connection)
        if current > len(known):
            raise SchemaTooNewError(
                f"the schema is at version {current}, this program at {len(known)}"
            )
        for migration in known[current:]:
            # Files of several statements: only the simple query protocol, chosen by giving no
            # parameters, takes them.
            connection.execute(migration.sql.encode())
            connection.execute(
                "INSERT INTO asr_schema_versions (version, name) VALUES (%s, %s)",
                (migration.version, migration.name),
            )
            applied.append(migration.name)
    return applied


def _current_version(connection: psycopg.Connection[Any]) -> int:
    found = connection.execute("SELECT to_regclass('asr_schema_versions')").fetchone()
    if found is None or found[0] is None:
        connection.execute(_VERSIONS_TABLE)
        return 0
    row = connection.execute("SELECT coalesce(max(version), 0) FROM asr_schema_versions").fetchone()
    assert row is not None
    return int(row[0])
