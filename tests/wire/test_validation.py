"""Each type of field. The tests of the codec cover every message."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec import Struct

from wire.validation import (
    ERROR_CHARS_MAX,
    INTEGER_MAX,
    LONG_TEXT_CHARS_MAX,
    NAME_CHARS_MAX,
    RATIO_MAX,
    TEXT_CHARS_MAX,
    LongText,
    Name,
    Ratio,
    Text,
    UFloat,
    UInt,
    WireError,
    convert,
)


class Fields(Struct, frozen=True, kw_only=True):
    integer: UInt = 0
    number: UFloat = 0.0
    ratio: Ratio = 0.0
    name: Name = ""
    text: Text = ""
    long_text: LongText | None = None


@pytest.mark.parametrize(
    "field, value",
    [
        ("integer", 0),
        ("integer", INTEGER_MAX),
        ("number", 1),
        ("number", 1.7e308),
        ("ratio", RATIO_MAX),
        ("name", "名" * NAME_CHARS_MAX),
        ("text", "文" * TEXT_CHARS_MAX),
        ("long_text", "x" * LONG_TEXT_CHARS_MAX),
        ("long_text", None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_valid(field: str, value: Any) -> None:
    assert getattr(convert({field: value}, Fields, "F"), field) == value


@pytest.mark.parametrize(
    "field, value",
    [
        *(("integer", value) for value in (-1, INTEGER_MAX + 1, 1 << 64, True, 1.0, "1", None)),
        *(("number", value) for value in (-0.5, math.nan, math.inf, -math.inf, True, "1", None)),
        *(("ratio", value) for value in (RATIO_MAX * 1.001, 1.7e308, math.nan, -1.0, "1")),
        *(("name", value) for value in ("n" * (NAME_CHARS_MAX + 1), b"n", 1, None)),
        *(("text", value) for value in ("t" * (TEXT_CHARS_MAX + 1), b"t", 1, None)),
        *(("long_text", value) for value in ("t" * (LONG_TEXT_CHARS_MAX + 1), b"t", 1)),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_invalid(field: str, value: Any) -> None:
    with pytest.raises(WireError, match=rf"^F: .*\$\.{field}"):
        convert({field: value}, Fields, "F")


def test_an_error_quotes_only_a_part_of_the_value() -> None:
    with pytest.raises(WireError) as caught:
        convert({"name" * 1_000: 1, "integer": "x" * 10_000}, Fields, "F")
    assert len(str(caught.value)) <= ERROR_CHARS_MAX + len("F: ")


def test_float_fields_hold_floats() -> None:
    assert type(convert({"number": 1}, Fields, "F").number) is float
