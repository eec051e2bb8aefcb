"""Field types of messages and records, and the check that a received value has them."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

TEXT_CHARS_MAX: Final = 1 << 16
LONG_TEXT_CHARS_MAX: Final = 1 << 20
NAME_CHARS_MAX: Final = 256
LANGUAGE_CHARS_MAX: Final = 32
LANGUAGES_MAX: Final = 128
RATIO_MAX: Final = 1e6
EMBEDDING_BYTES_MAX: Final = 4_096
"""1,024 values of a speaker embedding."""
INTEGER_MAX: Final = (1 << 53) - 1
"""A larger integer does not survive JSON, the other protocol we speak."""
ERROR_CHARS_MAX: Final = 200
"""Longest description of an invalid value, which quotes a part of that value."""

UInt = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
UFloat = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
"""Finite: NaN and infinity are refused."""
Ratio = Annotated[float, Meta(ge=0, le=RATIO_MAX)]
"""Seconds of audio per second. Limited, so that the sum over all peers is finite."""
Probability = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
"""An id or another short name; one message can hold the names of many peers."""
LanguageCode = Annotated[str, Meta(max_length=LANGUAGE_CHARS_MAX)]
Languages = Annotated[tuple[LanguageCode, ...], Meta(max_length=LANGUAGES_MAX)]
"""Languages of a model. Limited, because one message can hold those of all models."""
Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
LongText = Annotated[str, Meta(max_length=LONG_TEXT_CHARS_MAX)]
"""A whole transcript. The limit of a header in bytes is usually reached first."""
Embedding = Annotated[bytes, Meta(max_length=EMBEDDING_BYTES_MAX)]
"""A speaker embedding: float32, little-endian; empty: none."""

T = TypeVar("T")


class WireError(ValueError):
    """A peer sent something that is not a message of this protocol."""


def convert(value: Any, cls: type[T], where: str) -> T:
    """``value``, as msgpack unpacked it, as an instance of ``cls``.

    Raises:
        WireError: if a field is missing or invalid; the text starts with ``where``.
    """
    try:
        return msgspec.convert(value, cls)
    except msgspec.ValidationError as error:
        raise WireError(f"{where}: {str(error)[:ERROR_CHARS_MAX]}") from None
