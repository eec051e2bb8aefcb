"""Upgrades the database's schema to this program's version: numbered SQL files, each applied once.

A file named ``NNNN_add_…`` only adds tables, or columns with defaults: the release before works
with it. Any other newer migration makes ``migrate`` raise ``SchemaTooNewError``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct

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


class Migration(Struct, frozen=True, kw_only=True):
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
    """Apply the missing migrations, in one transaction under an advisory lock. Returns their names.

    ``connection`` must not be in a transaction. Its role needs the right to create tables only if a
    migration is missing.

    Raises:
        SchemaTooNewError: if the schema has a later migration that is not additive.
        psycopg.Error: if the database refuses something; nothing is changed then.
    """
    known = load_migrations() if migrations is None else migrations
    with connection.transaction():
        # Limits of the role may be shorter than a migration of a large table. The caller has one.
        for limit in ("statement_timeout", "lock_timeout"):
            connection.execute(f"SET LOCAL {limit} = 0")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK_KEY,))
        stored = _stored_names(connection)
        for version, name in stored.items():
            if version > len(known) and not _ADDITIVE.match(name):
                raise SchemaTooNewError(
                    f"the schema is at version {max(stored)}, this program at {len(known)}, "
                    f"and migration {name} is not additive: start the release that has it, or a "
                    "later one"
                )
        missing = known[max(stored, default=0) :]
        for migration in missing:
            # A file holds several statements. PostgreSQL accepts them only by the simple query
            # protocol, which psycopg uses for a query without parameters.
            connection.execute(migration.sql.encode())
            connection.execute(
                "INSERT INTO asr_schema_versions (version, name) VALUES (%s, %s)",
                (migration.version, migration.name),
            )
    return [migration.name for migration in missing]


def _stored_names(connection: psycopg.Connection[Any]) -> dict[int, str]:
    """Names of the migrations that the schema has, by version, ascending."""
    if connection.execute("SELECT to_regclass('asr_schema_versions')").fetchone() == (None,):
        connection.execute(_VERSIONS_TABLE)
    query = "SELECT version, name FROM asr_schema_versions ORDER BY version"
    return dict(connection.execute(query).fetchall())
