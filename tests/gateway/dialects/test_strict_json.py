"""The strict JSON reader refuses whatever parsers disagree about."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.dialect import MessageError
from gateway.dialects.strict_json import parse_object

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(fields=st.dictionaries(st.text(), VALUES))
def test_every_object_is_read_as_it_was_written(fields: dict[str, Any]) -> None:
    assert parse_object(json.dumps(fields)) == fields


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse_object('\ufeff{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        '{"a":1,"a":1}',
        '{"a":{"b":1,"b":2}}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":1e999}',
        '{"a":' * 100_000,
        '{"a":' + "9" * 5_000 + "}",
        "{'a':1}",
        '{"a":01}',
        '{"a":1,}',
    ],
    ids=range(15),
)
def test_refused(text: str) -> None:
    with pytest.raises(MessageError) as caught:
        parse_object(text)
    assert caught.value.code == "bad_message"
