"""Core: JSON from clients and to them. The reader refuses input that parsers interpret differently
(RFC 8259, sections 4 and 6)."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn, cast

from msgspec import to_builtins

from gateway.dialects.dialect import MessageError


def _refuse_constant(name: str) -> NoReturn:
    raise MessageError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise MessageError("a number is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise MessageError("a key is repeated")
    return fields


# One coder for all messages: ``json.loads`` with hooks would make one for each, at 8 µs.
to_json: Final = json.JSONEncoder(ensure_ascii=False, default=to_builtins).encode
"""Returns a value as JSON. It may contain msgspec's structs."""
_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
)


def parse_object(text: str) -> dict[str, Any]:
    """Return the JSON object in ``text``.

    Raises:
        MessageError: not JSON, not an object, a repeated key, a constant such as NaN, a number that
            is too large for a float, or nesting too deep for Python.
    """
    try:
        # .NET writes a byte order mark, which parsers may ignore (RFC 8259, section 8.1).
        value = _DECODER.decode(text.removeprefix("\ufeff"))
    except MessageError:
        raise
    except (ValueError, RecursionError) as error:
        # ValueError also covers integers of more digits than Python converts.
        raise MessageError("not valid JSON") from error
    if not isinstance(value, dict):
        raise MessageError("a message must be a JSON object")
    return cast(dict[str, Any], value)
