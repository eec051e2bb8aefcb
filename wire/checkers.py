"""Validating functions, made from annotations: one straight function for each class.

A checker takes a value as msgpack decoded it and returns it typed, or raises ``WireError``. It is
generated as source text once, at import, as ``dataclasses`` does with ``__init__``: closures that
call each other field by field cost twice the time of a broker's decoding (8.4 against 4.3 µs for
a job and its result). ``source_of`` shows what is generated.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any

TEXT_CHARS_MAX = 1 << 16
LONG_TEXT_CHARS_MAX = 1 << 20
NAME_CHARS_MAX = 256
RATIO_MAX = 1e6
ITEMS_MAX = 1 << 14
INTEGER_MAX = (1 << 53) - 1
"""Beyond this an integer would not survive JSON, the other protocol we speak."""

Checker = Callable[[Any], Any]


Name = Annotated[str, "name"]
"""At most ``NAME_CHARS_MAX``: others are told it, many of them together."""
LongText = Annotated[str, "long text"]
"""A whole transcript; a header's limit in bytes is the narrower one."""
Ratio = Annotated[float, "ratio"]
"""Seconds of audio per second. What all peers tell, added up, has to be a number, too."""


class WireError(ValueError):
    """A peer sent something that is no message of this protocol."""


def checker_of(annotation: Any, where: str) -> Checker:
    """The validating function for one annotation used in ``wire.messages``. It returns the value,
    typed, or raises ``WireError`` that begins with ``where``."""
    source, names = _function(annotation, where)
    exec(compile(source, f"<checker of {where}>", "exec"), names)
    check: Checker = names["check"]
    return check


def source_of(annotation: Any, where: str) -> str:
    """The text of ``checker_of``'s function, to be read by people."""
    return _function(annotation, where)[0]


def _function(annotation: Any, where: str) -> tuple[str, dict[str, Any]]:
    writer = _Writer()
    writer.line(0, "def check(value):")
    writer.check(annotation, "value", where, 1)
    writer.line(1, "return value")
    return "\n".join(writer.lines), writer.names


def _plain_number(value: Any) -> bool:
    return type(value) in (float, int) and math.isfinite(value) and value >= 0


def _string_keys(value: dict[Any, Any]) -> bool:
    return all(type(key) is str for key in value)


_SCALARS: dict[Any, tuple[str, str]] = {
    # bool is an int in Python, and a peer's `true` is no count of anything: hence type(), not
    # isinstance().
    int: (
        f"type({{0}}) is not int or not 0 <= {{0}} <= {INTEGER_MAX}",
        "not an integer from 0 to 2**53",
    ),
    float: ("not plain_number({0})", "not a finite number"),
    Ratio: (f"not plain_number({{0}}) or {{0}} > {RATIO_MAX:.0f}", "not a ratio to 1,000,000"),
    bool: ("type({0}) is not bool", "not a boolean"),
    str: (
        f"type({{0}}) is not str or len({{0}}) > {TEXT_CHARS_MAX}",
        "not a string, or too long",
    ),
    LongText: (
        f"type({{0}}) is not str or len({{0}}) > {LONG_TEXT_CHARS_MAX}",
        "not a string, or too long",
    ),
    Name: (
        f"type({{0}}) is not str or len({{0}}) > {NAME_CHARS_MAX}",
        "not a name, or too long",
    ),
    bytes: ("type({0}) is not bytes", "not bytes"),
}


class _Writer:
    """Writes the lines that check one variable in place. Text from outside never gets in: names
    come from our own classes, and everything else is passed as an object in ``names``."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "WireError": WireError,
            "plain_number": _plain_number,
            "string_keys": _string_keys,
        }

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def refuse_if(self, condition: str, why: str, depth: int) -> None:
        self.line(depth, f"if {condition}:")
        self.line(depth + 1, f"raise WireError({why!r})")

    def named(self, thing: Any, kind: str) -> str:
        name = f"{kind}_{len(self.names)}"
        self.names[name] = thing
        return name

    def check(self, annotation: Any, name: str, where: str, depth: int) -> None:
        """Lines after which the variable ``name`` holds the typed value."""
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if annotation in _SCALARS:
            condition, why = _SCALARS[annotation]
            self.refuse_if(condition.format(name), f"{where}: {why}", depth)
            if annotation in (float, Ratio):
                self.line(depth, f"{name} = float({name})")
        elif is_dataclass(annotation) and isinstance(annotation, type):
            self._check_fields(annotation, name, where, depth)
        elif origin is typing.Literal:
            allowed = self.named(frozenset(arguments), "allowed")
            why = f"{where}: not one of {', '.join(arguments)}"
            self.refuse_if(f"type({name}) is not str or {name} not in {allowed}", why, depth)
        elif origin is dict:
            condition = f"type({name}) is not dict or not string_keys({name})"
            self.refuse_if(condition, f"{where}: not a map with string keys", depth)
        elif origin is tuple:
            condition = f"type({name}) is not list or len({name}) > {ITEMS_MAX}"
            self.refuse_if(condition, f"{where}: not a list, or too long", depth)
            check_item = self.named(checker_of(arguments[0], where), "check")
            # Most lists are empty, and a comprehension is a call.
            self.line(
                depth, f"{name} = tuple([{check_item}(item) for item in {name}] if {name} else ())"
            )
        elif origin in (typing.Union, types.UnionType):
            (inner,) = [a for a in arguments if a is not type(None)]
            self.line(depth, f"if {name} is not None:")
            self.check(inner, name, where, depth + 1)
        else:
            raise TypeError(f"no checker for {annotation!r}")

    def _check_fields(self, cls: type, name: str, where: str, depth: int) -> None:
        hints = typing.get_type_hints(cls, include_extras=True)
        names = [f.name for f in fields(cls)]
        # As many keys as fields, and each field is there: no key is left over.
        wrong = f"{where}: wrong fields"
        self.refuse_if(f"type({name}) is not dict or len({name}) != {len(names)}", wrong, depth)
        local = {field: f"{name}_{field}" for field in names}
        self.line(depth, "try:")
        for field in names:
            self.line(depth + 1, f"{local[field]} = {name}[{field!r}]")
        self.line(depth, "except KeyError:")
        self.line(depth + 1, f"raise WireError({wrong!r}) from None")
        if {"text", "error"} <= set(names):
            both_or_none = f"({local['text']} is None) == ({local['error']} is None)"
            self.refuse_if(both_or_none, f"{where}: needs either text or error", depth)
        for field in names:
            self.check(hints[field], local[field], f"{where}.{field}", depth)
        given = ", ".join(f"{field}={local[field]}" for field in names)
        self.line(depth, f"{name} = {self.named(cls, 'cls')}({given})")
