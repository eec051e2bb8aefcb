"""Conversion of values to what PostgreSQL can store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from persistence import metrics
from wire.messages import Token

TIME_MS_MAX = 253_402_300_799_000
"""End of the year 9999, the last year that ISO 8601 writes with four digits."""


def clean_item(item: Token | str) -> Token | str:
    """Return ``item`` with its text cleaned."""
    return clean(item) if isinstance(item, str) else replace(item, text=clean(item.text))


def clean(text: str) -> str:
    """Return ``text`` with NUL and lone surrogates, which PostgreSQL cannot store, replaced by
    U+FFFD. A replacement is counted."""
    cleaned = text.replace("\0", "\ufffd")
    try:
        cleaned.encode()
    except UnicodeEncodeError:
        cleaned = cleaned.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if cleaned != text:
        metrics.TEXTS_CLEANED.inc()
    return cleaned


def as_json(rows: Iterable[Any]) -> str:
    """Return ``rows`` as a JSON array, the parameter of a statement that inserts them: psycopg
    spends ten times as long on an array for each column."""
    return msgspec.json.encode(list(rows)).decode()


def wall_time(milliseconds: int) -> datetime:
    """Return the UTC time of ``milliseconds`` since 1970, limited to ``TIME_MS_MAX``."""
    return datetime.fromtimestamp(min(milliseconds, TIME_MS_MAX) / 1000, UTC)
