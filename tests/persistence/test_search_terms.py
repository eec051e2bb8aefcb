from __future__ import annotations

import psycopg
import pytest

from persistence.search_terms import TERMS_BYTES_MAX, first_word, query_of, terms_of


def found(database: str, text: str, wanted: str) -> bool:
    """Whether PostgreSQL finds ``text`` by the words ``wanted``."""
    with psycopg.connect(database) as connection:
        query = "SELECT array_to_tsvector(%s::text[]) @@ %s::tsquery"
        row = connection.execute(query, (terms_of([text]), query_of(wanted))).fetchone()
    assert row is not None
    return bool(row[0])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Nine two, FIVE.", "five nine"),
        ("the meeting", "meet*"),
        ("今天天气很好", "天气"),
        ("今天天气很好", "气"),
        ("今天天气很好", "好"),
        ("今天天气很好", "今天天气很好"),
        ("打开iPhone手机", "iphone 手机"),
        ("ＡＢＣ１２３", "abc123"),
        ("Don’t stop", "don't"),
        ("it's 3.5 %", "3.5"),
        ("カタカナと ひらがな", "カナ"),
        ("안녕하세요", "하세"),
        ("Straße", "STRASSE"),
        ("a" * 70, "a" * 65),
    ],
)
def test_texts_are_found_by_words_and_by_parts_of_unspaced_text(
    database: str, text: str, wanted: str
) -> None:
    assert found(database, text, wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("the meeting", "meet"),
        ("nine two", "nine three"),
        ("今天天气很好", "气天"),
        ("今天天气很好", "雨"),
        ("don't", "dont"),
    ],
)
def test_other_texts_are_not_found(database: str, text: str, wanted: str) -> None:
    assert not found(database, text, wanted)


def test_unspaced_text_is_found_across_parts() -> None:
    assert "天气" in terms_of(["今天", "气好"])
    assert terms_of(["nine", "two"]) == ["nine", "two"]
    assert terms_of(["打开", "iPhone"]) == ["打开", "开", "iphone"]


@pytest.mark.parametrize("wanted", ["", "!?", "& | ! ( )", "'", "*"])
def test_without_a_letter_or_digit_there_is_no_query(wanted: str) -> None:
    assert query_of(wanted) == first_word(wanted) == ""


@pytest.mark.parametrize("wanted", ["a'b", "a & b", "a:*", "\\'a", "x'' | 'y", "a_b", "a*b"])
def test_no_character_is_an_operator_but_the_asterisk(database: str, wanted: str) -> None:
    assert not found(database, "zzz", wanted)


def test_the_first_word_is_what_a_preview_shows() -> None:
    assert first_word(" (Nine* two)") == "nine"
    assert first_word("天气 today") == "天气"


def test_the_terms_of_a_text_have_a_limit(database: str) -> None:
    words = " ".join(f"{number:064}" for number in range(9_000))
    terms = terms_of([words])
    assert len(terms) == TERMS_BYTES_MAX // 64
    assert found(database, words, f"{0:064}")
