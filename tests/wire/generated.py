"""Hypothesis strategies for every message, derived from its annotations as the codec's are, so
that a new message or field is tested without anybody thinking of it."""

from __future__ import annotations

import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any

from hypothesis import strategies as st

from wire import checkers, records
from wire import messages as m

MESSAGE_TYPES: tuple[type, ...] = typing.get_args(m.Message)
RECORD_TYPES: tuple[type, ...] = typing.get_args(records.RecordBody)

_PLAIN: st.SearchStrategy[Any] = st.recursive(
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

_SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, checkers.INTEGER_MAX),
    float: st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: st.text(max_size=40),
    bytes: st.binary(max_size=64).map(lambda raw: raw[: len(raw) // 2 * 2]),
}


def of(annotation: Any) -> st.SearchStrategy[Any]:
    """Valid values of one annotation used in ``wire.messages`` or ``wire.records``."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if annotation in (checkers.Name, checkers.LongText):
        return st.text(max_size=40)
    if annotation == checkers.Ratio:
        return st.floats(min_value=0, max_value=checkers.RATIO_MAX)
    if is_dataclass(annotation):
        return of_class(typing.cast(type, annotation))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return st.dictionaries(st.text(max_size=8), _PLAIN, max_size=4)
    if origin is tuple:
        return st.lists(of(arguments[0]), max_size=4).map(tuple)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([st.none() if a is type(None) else of(a) for a in arguments])
    raise TypeError(f"no strategy for {annotation!r}")


def of_class(cls: type) -> st.SearchStrategy[Any]:
    """Valid instances of a message or record class."""
    hints = typing.get_type_hints(cls, include_extras=True)
    parts = {field.name: of(hints[field.name]) for field in fields(cls)}
    if {"text", "error"} <= parts.keys():
        either = st.one_of(st.tuples(of(str), st.none()), st.tuples(st.none(), of_class(m.Failure)))
        rest = {name: part for name, part in parts.items() if name not in ("text", "error")}
        return st.builds(
            lambda texts, others: cls(text=texts[0], error=texts[1], **others),
            either,
            st.fixed_dictionaries(rest),
        )
    return st.builds(cls, **parts)


messages: st.SearchStrategy[Any] = st.one_of([of_class(cls) for cls in MESSAGE_TYPES])
record_bodies: st.SearchStrategy[Any] = st.one_of([of_class(cls) for cls in RECORD_TYPES])
plain_values = _PLAIN
