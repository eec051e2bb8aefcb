"""Backup and restore, as docs/operations.md has them: into the database of a running system, and
into an empty one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from tests.conftest import EmbeddedServices
from tests.integration.speech import say, spoken
from tests.test_tidy import ROOT
from tools.embedded.directory import EmbeddedError
from tools.embedded.postgres import wheel_bin
from tools.lab.harness import database
from tools.lab.harness.stack import Stack, running_stack, wait_until

Rows = dict[str, list[Any]]


@pytest.fixture
def programs(embedded_services: EmbeddedServices) -> Path:
    """The folder of a ``pg_dump`` that can read the server: of its release, or of a later one."""
    on_path = shutil.which("pg_dump")
    found = [Path(on_path).parent] if on_path else []
    with contextlib.suppress(EmbeddedError):
        found.insert(0, wheel_bin())
    for folder in found:
        if (folder / "pg_dump").exists() and (folder / "pg_restore").exists():
            url = embedded_services.database_url
            command = [str(folder / "pg_dump"), "--schema-only", f"--dbname={url}"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return folder
    pytest.skip("no pg_dump of the server's release")


def documented(program: str) -> list[str]:
    """The arguments of ``program`` in docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{program} "))
    return line.split()


def run(programs: Path, program: str, url: str, directory: Path) -> None:
    words = [word.replace('"$DATABASE_URL"', url) for word in documented(program)]
    words[0] = str(programs / program)
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def rows(url: str) -> Rows:
    """Every row of every table, as text."""
    with database.connect(url) as connection:
        names = [
            str(name)
            for (name,) in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            )
        ]
        return {
            name: sorted(
                str(row)
                for (row,) in connection.execute(
                    sql.SQL("SELECT each::text FROM {} AS each").format(sql.Identifier(name))
                )
            )
            for name in names
        }


def history(stack: Stack) -> set[str]:
    answer = stack.get("/api/v1/history")
    assert answer.status == 200, answer
    return {str(each["session_id"]) for each in answer.body["records"]}


def text_of(stack: Stack, session_id: str) -> str:
    return str(stack.get(f"/api/v1/session/{session_id}").body["text"])


async def test_a_backup_is_restored(
    embedded_services: EmbeddedServices, programs: Path, tmp_path: Path
) -> None:
    url = database.create(embedded_services.database_url, "backup")
    redis_url = embedded_services.redis_url
    with running_stack(url, redis_url) as stack:
        stack.start_all()
        before = spoken(8_100)
        first, _ = await say(stack.url(), before)
        wait_until(lambda: bool(database.is_completed(url, first)), "the first session's row")
        kept = rows(url)
        run(programs, "pg_dump", url, tmp_path)
        later, _ = await say(stack.url(), spoken(8_101))
        wait_until(lambda: bool(database.is_completed(url, later)), "the second session's row")

        stack.processes.pop("persistence").stop()
        meanwhile, final = await say(stack.url(), spoken(8_102))
        assert not final.stored
        run(programs, "pg_restore", url, tmp_path)
        assert rows(url) == kept and kept["asr_segments"]
        stack.start("persistence")
        wait_until(lambda: bool(database.is_completed(url, meanwhile)), "what the gateway has kept")
        assert history(stack) == {first, meanwhile}
        assert text_of(stack, first) == before.text

    empty = database.create(embedded_services.database_url, "restored")
    run(programs, "pg_restore", empty, tmp_path)
    assert rows(empty) == kept
    with running_stack(empty, redis_url) as stack:
        stack.start_all()
        assert history(stack) == {first}
        assert text_of(stack, first) == before.text
        again, _ = await say(stack.url(), spoken(8_103))
        wait_until(lambda: bool(database.is_completed(empty, again)), "a new session's row")
