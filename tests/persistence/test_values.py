from __future__ import annotations

import json
from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from persistence.values import TIME_MS_MAX, as_json, clean, clean_item, wall_time
from wire.messages import Token

ANY_TEXT = st.text(st.characters(codec=None))


def cleaned_count() -> float:
    return REGISTRY.get_sample_value("asr_persistence_texts_cleaned_total") or 0.0


@given(ANY_TEXT)
def test_cleaned_text_has_neither_nul_nor_lone_surrogates(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()
    assert "\0" not in cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize("text", ["", "one 一 😀", "\ufffd"])
def test_storable_text_is_unchanged_and_not_counted(text: str) -> None:
    before = cleaned_count()
    assert clean(text) == text
    assert cleaned_count() == before


def test_a_changed_text_is_counted_once() -> None:
    before = cleaned_count()
    assert clean("\0\0\ud800") == "\ufffd\ufffd\ufffd"
    assert cleaned_count() == before + 1


def test_tokens_keep_their_times_and_are_cleaned() -> None:
    tokens = (Token(text="一", start_ms=10, end_ms=200), Token(text="\0", start_ms=200, end_ms=201))
    text = as_json(map(clean_item, tokens))
    assert "一" in text
    assert json.loads(text) == [
        {"text": "一", "start_ms": 10, "end_ms": 200},
        {"text": "\ufffd", "start_ms": 200, "end_ms": 201},
    ]


def test_times_are_utc_and_end_with_the_year_9999(database: str) -> None:
    assert wall_time(1_000) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert wall_time(TIME_MS_MAX + 1) == wall_time(1 << 60) == wall_time(TIME_MS_MAX)
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT %s::timestamptz", (wall_time(1 << 60),)).fetchone()
    assert row == (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),)
