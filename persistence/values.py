"""Values as PostgreSQL can store them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from persistence import metrics
from wire.messages import Token

TIME_MS_MAX = 253_402_300_799_000
"""End of the year 9999: the last that ISO 8601 writes with four digits."""


def tokens_json(tokens: tuple[Token, ...]) -> str:
    return json.dumps(
        [
            {"text": clean(token.text), "start_ms": token.start_ms, "end_ms": token.end_ms}
            for token in tokens
        ],
        ensure_ascii=False,
    )


def clean(text: str) -> str:
    """``text`` as PostgreSQL can store it: NUL and lone surrogates become U+FFFD, and that is
    counted."""
    cleaned = text.replace("\0", "\ufffd")
    try:
        cleaned.encode()
    except UnicodeEncodeError:
        cleaned = cleaned.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if cleaned != text:
        metrics.TEXTS_CLEANED.inc()
    return cleaned


def wall_time(milliseconds: int) -> datetime:
    """UTC time of ``milliseconds`` since 1970; what is later than year 9999 becomes that."""
    return datetime.fromtimestamp(min(milliseconds, TIME_MS_MAX) / 1000, UTC)
