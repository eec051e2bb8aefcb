"""Upgrades the database's schema to this program's version: numbered SQL files, each applied once.

All missing files are applied in one transaction under an advisory lock. Several processes may start
at the same time, and a failed migration changes nothing.

A file named ``NNNN_add_…`` only adds tables, or columns with defaults. A program that does not know
it yet works with the newer schema, so that adjacent releases can run together. Any other newer
migration makes ``migrate`` raise ``SchemaTooNewError``.
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
_ADDITIVE = re.compile(r"\d{4}_add_")
_VERSIONS_TABLE = """
CREATE TABLE asr_schema_versions (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class SchemaTooNewError(Exception):
    """A newer program changed the schema in a way that this one may not understand."""


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
    """Apply the missing migrations. Returns the names of those applied now.

    ``connection`` must not be in a transaction. Its role needs the right to create tables only if a
    migration is missing.

    Raises:
        SchemaTooNewError: if the schema has a later migration that is not additive.
        psycopg.Error: if the database refuses something; nothing is changed then.
    """
    known = load_migrations() if migrations is None else migrations
    applied = []
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK_KEY,))
        current = _current_version(connection)
        for name in _later_than(len(known), connection):
            if not _ADDITIVE.match(name):
                raise SchemaTooNewError(
                    f"the schema is at version {current}, this program at {len(known)}, "
                    f"and migration {name} is not additive"
                )
        for migration in known[current:]:
            # A file holds several statements. PostgreSQL accepts them only by the simple query
            # protocol, which psycopg uses for a query without parameters.
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


def _later_than(version: int, connection: psycopg.Connection[Any]) -> list[str]:
    query = "SELECT name FROM asr_schema_versions WHERE version > %s ORDER BY version"
    return [name for (name,) in connection.execute(query, (version,))]
