from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.history import PREVIEW_CHARS_MAX, Cursor, HistoryQuery, page_of
from wire.records import DEFAULT_TENANT

CREATED_US_MAX = 253_402_300_799_999_999
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(
    number: int, preview: str = "", preview_at: int = 1, rows_found: int = 1
) -> dict[str, object]:
    return {
        "session_id": f"s{number}",
        "created_us": number,
        "bytes_before": None,
        "rows_found": rows_found,
        "preview": preview,
        "preview_at": preview_at,
        "text": None,
    }


@given(
    st.integers(0, CREATED_US_MAX),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=128),
)
def test_a_cursor_is_read_as_it_was_written(created_us: int, session_id: str) -> None:
    cursor = Cursor(created_us=created_us, session_id=session_id)
    assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "====",
        "MSBz!",
        "0",
        Cursor(created_us=1, session_id="s\0").encode(),
        Cursor(created_us=CREATED_US_MAX + 1, session_id="s").encode(),
        "é",
        "a" * 500,
    ],
)
def test_an_invalid_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="next_cursor"):
        Cursor.decode(text)


def test_only_what_is_asked_for_becomes_a_condition() -> None:
    assert HistoryQuery(tenant=DEFAULT_TENANT).conditions()[0] == []
    asked = HistoryQuery(
        tenant=DEFAULT_TENANT,
        since=NOON,
        until=NOON,
        user_id="",
        statuses=("lost",),
        words="a 天",
        model="m",
    )
    conditions, parameters = asked.conditions()
    assert len(conditions) == 6
    assert parameters["user_id"] == "" and parameters["statuses"] == ["lost"]
    assert parameters["terms"] == "'a' & '天':*"
    assert HistoryQuery(tenant=DEFAULT_TENANT).position() == ([], {})
    position = HistoryQuery(
        tenant=DEFAULT_TENANT, cursor=Cursor(created_us=1_500_000, session_id="s")
    ).position()[1]
    assert position == {"last_at": datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC), "last_id": "s"}


def test_a_page_names_the_next_one_while_there_are_more_rows() -> None:
    page = page_of([row(n, rows_found=3) for n in (3, 2, 1)], 3, limit=2)
    assert [record["session_id"] for record in page.records] == ["s3", "s2"]
    assert page.next_cursor == Cursor(created_us=2, session_id="s2").encode()
    assert page_of([row(3), row(2)], 2, limit=2).next_cursor is None
    assert page_of([], 0, limit=2).next_cursor is None
    # Rows that would make the page too large are left out by the query.
    assert page_of([row(3, rows_found=2)], 2, limit=2).next_cursor is not None


def test_a_preview_shows_where_it_was_cut() -> None:
    (whole, cut) = page_of([row(2, "one"), row(1, "x" * 201, 7)], 2, limit=2).records
    assert (whole["preview"], cut["preview"]) == ("one", f"…{'x' * PREVIEW_CHARS_MAX}…")
    assert "preview_at" not in whole and "created_us" not in whole
