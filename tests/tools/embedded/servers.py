"""Questions to the embedded servers, and their processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis

from runtime import settings
from tools.lab.harness.process import LoggedProcess


def database_url(data_dir: Path) -> str:
    return settings.DatabaseSettings(data_dir=data_dir, db_host=None).database_address()


def servers_of(process: LoggedProcess) -> dict[str, psutil.Process]:
    return {child.name(): child for child in psutil.Process(process.pid).children()}


def of_server(name: str, event: dict[str, Any]) -> bool:
    return bool(event["server"] == name)


def ask_postgres(data_dir: Path) -> int:
    with psycopg.connect(database_url(data_dir)) as connection:
        row = connection.execute("SELECT 42").fetchone()
    assert row is not None
    return int(row[0])


def ask_valkey(data_dir: Path) -> bool:
    address = settings.RedisSettings(data_dir=data_dir, redis_url=None).redis_address()
    with redis.Redis.from_url(address) as client:
        return bool(client.ping())
