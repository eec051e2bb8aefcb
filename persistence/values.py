"""Conversion of values to what PostgreSQL can store."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from persistence import metrics
from wire.messages import Token

TIME_MS_MAX = 253_402_300_799_000
"""End of the year 9999, the last year that ISO 8601 writes with four digits."""


def items_json(items: tuple[Token | str, ...]) -> str:
    """Return ``items`` as JSON, with cleaned texts."""
    return msgspec.json.encode([_clean_item(item) for item in items]).decode()


def _clean_item(item: Token | str) -> Token | str:
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


def wall_time(milliseconds: int) -> datetime:
    """Return the UTC time of ``milliseconds`` since 1970, limited to ``TIME_MS_MAX``."""
    return datetime.fromtimestamp(min(milliseconds, TIME_MS_MAX) / 1000, UTC)
