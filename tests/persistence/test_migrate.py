from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from persistence.migrate import Migration, SchemaTooNewError, load_migrations, migrate


def applied_versions(database: str) -> list[int]:
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT version FROM asr_schema_versions ORDER BY 1")
        return [row[0] for row in rows]


def migrate_once(database: str) -> list[str]:
    with psycopg.connect(database, autocommit=True) as connection:
        return migrate(connection)


def test_each_migration_is_applied_once(database: str) -> None:
    names = [m.name for m in load_migrations()]
    assert migrate_once(database) == names
    assert migrate_once(database) == []
    assert applied_versions(database) == list(range(1, len(names) + 1))


def test_concurrent_processes_apply_each_migration_once(database: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        done = list(threads.map(migrate_once, [database] * 6))
    assert sorted(done, key=len) == [[]] * 5 + [[m.name for m in load_migrations()]]


def test_a_failed_migration_is_rolled_back(database: str) -> None:
    broken = Migration(
        version=2, name="0002_broken", sql="CREATE TABLE half (x integer); SELECT no_such_thing;"
    )
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.UndefinedColumn):
            migrate(connection, [load_migrations()[0], broken])
        found = connection.execute("SELECT to_regclass('half'), to_regclass('asr_sessions')")
        assert found.fetchone() == (None, None)


def test_only_missing_migrations_are_applied(database: str) -> None:
    first = Migration(version=1, name="0001_a", sql="CREATE TABLE a (x integer)")
    second = Migration(version=2, name="0002_b", sql="CREATE TABLE b (x integer)")
    with psycopg.connect(database, autocommit=True) as connection:
        assert migrate(connection, [first]) == ["0001_a"]
        assert migrate(connection, [first, second]) == ["0002_b"]
        with pytest.raises(SchemaTooNewError, match=r"version 2, this program at 1, .*0002_b"):
            migrate(connection, [first])


def test_a_program_works_with_later_additive_migrations(database: str) -> None:
    first = Migration(version=1, name="0001_a", sql="CREATE TABLE a (x integer)")
    added = Migration(version=2, name="0002_add_y", sql="ALTER TABLE a ADD y integer DEFAULT 0")
    changed = Migration(version=3, name="0003_drop_x", sql="ALTER TABLE a DROP x")
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection, [first, added])
        assert migrate(connection, [first]) == []
        migrate(connection, [first, added, changed])
        with pytest.raises(SchemaTooNewError, match="0003_drop_x is not additive"):
            migrate(connection, [first])


def test_a_role_without_create_privilege_starts_on_a_complete_schema(database: str) -> None:
    migrate_once(database)
    with psycopg.connect(database, autocommit=True) as connection:
        role = f"reader_{connection.info.dbname}"
        name = sql.Identifier(role)
        connection.execute(sql.SQL("CREATE ROLE {}").format(name))
        try:
            connection.execute(sql.SQL("GRANT SELECT ON asr_schema_versions TO {}").format(name))
            connection.execute(sql.SQL("SET ROLE {}").format(name))
            assert migrate(connection) == []
        finally:
            connection.execute("RESET ROLE")
            connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
            connection.execute(sql.SQL("DROP ROLE {}").format(name))


def test_limits_of_the_role_do_not_end_a_long_migration(database: str) -> None:
    slow = Migration(version=1, name="0001_slow", sql="SELECT pg_sleep(0.5)")
    with psycopg.connect(database, autocommit=True) as connection:
        for limit in ("statement_timeout", "lock_timeout"):
            connection.execute(f"SET {limit} = 200".encode())
        assert migrate(connection, [slow]) == ["0001_slow"]
        assert connection.execute("SHOW statement_timeout").fetchone() == ("200ms",)


def test_files_must_be_numbered_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("")
    (tmp_path / "0003_c.sql").write_text("")
    with pytest.raises(AssertionError, match="gap"):
        load_migrations(tmp_path)
