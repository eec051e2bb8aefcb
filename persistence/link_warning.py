"""A warning about an unencrypted link to PostgreSQL."""

from __future__ import annotations

import functools
from typing import Any

import psycopg
import structlog

from runtime.endpoints import is_loopback


def warn_if_plain(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Log once for each server of another host whose connection is not encrypted."""
    if not connection.pgconn.ssl_in_use:
        info = connection.info
        _warn(info.hostaddr or info.host)


@functools.cache
def _warn(host: str) -> None:
    if host and not host.startswith(("/", "@")) and not is_loopback(host):
        advice = "add sslmode=verify-full&sslrootcert=… to DATABASE_URL"
        structlog.get_logger().warning("database_link_plain", host=host, advice=advice)
