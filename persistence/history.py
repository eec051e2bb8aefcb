"""Core: a page of the history of sessions: the conditions of its query, and the page from its rows.

A page begins after the last session of the page before: sessions stored meanwhile do not shift it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import Struct

from persistence.search_terms import first_word, query_of

LIMIT_MAX = 1_000
"""Sessions of a page."""
OFFSET_MAX = 10_000
"""Limit of skipped sessions, because the database reads each of them. Cursors have no limit."""
TOTAL_MAX = 5_000
"""Sessions are counted up to this number: ``total`` is at most as large."""
PREVIEW_CHARS_MAX = 200
"""Characters of a text that a list shows."""
PREVIEW_BEFORE_CHARS = 40
"""Of these, characters before the first match."""
PREVIEW_SEGMENTS = 8
"""Segments in the preview of a session without a stored text."""
TEXT_BYTES_MAX = 8 << 20
"""UTF-8 bytes of whole texts, after which a page ends early."""
_CURSOR = re.compile(r"(\d{1,18}) (.{1,128})", re.DOTALL)
_CREATED_US_MAX = 253_402_300_799_999_999
"""End of the year 9999."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Cursor(Struct, frozen=True, kw_only=True):
    """A position in the history: after this session."""

    created_us: int
    """Microseconds since 1970."""
    session_id: str

    def encode(self) -> str:
        packed = f"{self.created_us} {self.session_id}".encode()
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @staticmethod
    def decode(text: str) -> Cursor:
        """Raises:
        ValueError: not a cursor that ``encode`` made.
        """
        try:
            packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        except ValueError:
            packed = ""
        match = _CURSOR.fullmatch(packed)
        if match is not None and "\0" not in packed:
            cursor = Cursor(created_us=int(match[1]), session_id=match[2])
            # The decoder ignores characters that it does not know.
            if cursor.encode() == text and cursor.created_us <= _CREATED_US_MAX:
                return cursor
        raise ValueError("not a next_cursor of this server")


class HistoryQuery(Struct, frozen=True, kw_only=True):
    """The requested sessions. None or an empty tuple: no condition."""

    tenant: str
    """Owner of the sessions."""
    limit: int = 50
    """At most ``LIMIT_MAX``."""
    offset: int = 0
    cursor: Cursor | None = None
    since: datetime | None = None
    """Sessions that began at this time or later …"""
    until: datetime | None = None
    """… and before this one. Both are aware of their time zone."""
    user_id: str | None = None
    statuses: tuple[str, ...] = ()
    model: str | None = None
    words: str = ""
    """Words that the text contains; ``""``: any text. Only ended sessions are found."""
    texts: bool = False
    """Return whole texts besides previews."""

    def conditions(self) -> tuple[list[str], dict[str, Any]]:
        """Return the conditions on ``asr_sessions s``, and the parameters of the query."""
        asked: list[tuple[str, str, Any]] = [
            ("s.created_at >= %(since)s", "since", self.since),
            ("s.created_at < %(until)s", "until", self.until),
            ("s.user_id = %(user_id)s", "user_id", self.user_id),
            ("s.status = ANY (%(statuses)s)", "statuses", list(self.statuses) or None),
            ("s.model = %(model)s", "model", self.model),
            ("s.terms @@ %(terms)s::tsquery", "terms", query_of(self.words) or None),
        ]
        parameters = {
            "tenant": self.tenant,
            "limit": min(self.limit, LIMIT_MAX),
            "offset": min(self.offset, OFFSET_MAX),
            "total_max": TOTAL_MAX,
            "texts": self.texts,
            "text_bytes": TEXT_BYTES_MAX,
            "preview_chars": PREVIEW_CHARS_MAX,
            "preview_before": PREVIEW_BEFORE_CHARS,
            "preview_segments": PREVIEW_SEGMENTS,
            "preview_word": first_word(self.words),
        }
        parameters |= {name: value for _, name, value in asked}
        return [condition for condition, _, value in asked if value is not None], parameters

    def position(self) -> tuple[list[str], dict[str, Any]]:
        """Return the condition of the cursor, and its parameters."""
        if self.cursor is None:
            return [], {}
        # The index can use the first part.
        after = "s.created_at <= %(last_at)s AND (s.created_at < %(last_at)s OR s.id > %(last_id)s)"
        last_at = _EPOCH + timedelta(microseconds=self.cursor.created_us)
        return [after], {"last_at": last_at, "last_id": self.cursor.session_id}


class HistoryPage(Struct, frozen=True, kw_only=True):
    total: int
    """Sessions on all pages, at most ``TOTAL_MAX``."""
    records: tuple[dict[str, Any], ...]
    next_cursor: str | None
    """None: there are no more."""


def page_of(rows: Sequence[Mapping[str, Any]], total: int, limit: int) -> HistoryPage:
    """Return the page of ``rows``, each of which also has the number of all rows."""
    shown = rows[: min(limit, LIMIT_MAX)]
    more = bool(shown) and shown[0]["rows_found"] > len(shown)
    next_cursor = None
    if more:
        last = Cursor(created_us=shown[-1]["created_us"], session_id=shown[-1]["session_id"])
        next_cursor = last.encode()
    return HistoryPage(total=total, records=tuple(map(_record, shown)), next_cursor=next_cursor)


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    record = dict(row)
    for name in ("created_us", "bytes_before", "rows_found"):
        del record[name]
    begin, preview = record.pop("preview_at"), record["preview"]
    before, after = "…" if begin > 1 else "", "…" if len(preview) > PREVIEW_CHARS_MAX else ""
    shown = before + preview[:PREVIEW_CHARS_MAX].strip() + after
    text = record["text"] if record["text"] is not None else shown
    return record | {"preview": shown, "text": text}
