"""JSON objects from clients, read strictly: what one reader takes differently from another is
refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

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
        raise MessageError("a key comes twice")
    return fields


# Made once: ``json.loads`` with hooks makes one for each message, at 8 µs.
_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
)


def parse_object(text: str) -> dict[str, Any]:
    """The object that ``text`` is.

    Raises:
        MessageError: it is none.
    """
    try:
        value = _DECODER.decode(text)
    except MessageError:
        raise
    except (ValueError, RecursionError) as error:
        # ValueError also covers integers of more digits than Python converts.
        raise MessageError("not valid JSON") from error
    if not isinstance(value, dict):
        raise MessageError("a message is a JSON object")
    return cast(dict[str, Any], value)


def storable(value: str, name: str) -> str:
    """``value`` itself.

    Raises:
        MessageError: it has characters that neither PostgreSQL nor UTF-8 has.
    """
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise MessageError(f"{name} has characters that cannot be stored")
    return value
