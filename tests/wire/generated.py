"""Hypothesis strategies for every message and record, derived from its annotations, so that a new
message or field is covered without further code."""

from __future__ import annotations

import typing
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

from wire import messages as m
from wire import records

MESSAGE_TYPES: tuple[type[m.Message], ...] = typing.get_args(m.Message)
RECORD_TYPES: tuple[type[records.RecordBody], ...] = typing.get_args(records.RecordBody)

plain_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)


def _of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.IntType(ge=low, le=high):
            return st.integers(low, high)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False)
        case inspect.StrType(max_length=longest):
            return st.text(max_size=min(40, longest or 40))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.BytesType():
            return st.binary(max_size=64).map(lambda raw: raw[: len(raw) // 2 * 2])
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.DictType():
            return st.dictionaries(st.text(max_size=8), plain_values, max_size=4)
        case inspect.VarTupleType(item_type=item):
            return st.lists(_of(item), max_size=4).map(tuple)
        case inspect.UnionType(types=types):
            return st.one_of([_of(each) for each in types])
        case inspect.StructType(cls=cls):
            return of_class(cls)
    raise TypeError(f"no strategy for {kind!r}")


def of_class(cls: type) -> st.SearchStrategy[Any]:
    """Valid instances of a message or record class."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    parts = {field.name: _of(field.type) for field in info.fields}
    if {"text", "error"} <= parts.keys():
        text, error = parts.pop("text"), parts.pop("error")
        either = st.one_of(
            st.fixed_dictionaries({"text": text.filter(_is_given), "error": st.none()}),
            st.fixed_dictionaries({"text": st.none(), "error": error.filter(_is_given)}),
        )
        return st.builds(
            lambda outcome, rest: cls(**outcome, **rest), either, st.fixed_dictionaries(parts)
        )
    return st.builds(cls, **parts)


def _is_given(value: Any) -> bool:
    return value is not None


messages: st.SearchStrategy[Any] = st.one_of([of_class(cls) for cls in MESSAGE_TYPES])
record_bodies: st.SearchStrategy[Any] = st.one_of([of_class(cls) for cls in RECORD_TYPES])
