"""Core: fields that several protocols have: limits, types, and readers of lax forms."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

from gateway.audio.formats import RAW_SAMPLE_RATE_HZ_MAX, RAW_SAMPLE_RATE_HZ_MIN
from gateway.dialects.dialect import MessageError
from wire.messages import SESSION_ID_CHARS_MAX

SESSION_ID_PATTERN = rf"[A-Za-z0-9][A-Za-z0-9._:-]{{0,{SESSION_ID_CHARS_MAX - 1}}}"
USER_ID_CHARS_MAX = 128
LANGUAGE_CHARS_MAX = 32
MODEL_CHARS_MAX = 256
"""Longest served name, which can be the path of a directory."""
HOTWORDS_MAX = 200
HOTWORD_CHARS_MAX = 64
RESUME_TOKEN_CHARS_MAX = 128
INDEX_MAX = (1 << 31) - 1
NAMES_SHOWN_MAX = 16
"""Names without effect, of fields or parameters, that warnings show."""
NAME_CHARS_SHOWN_MAX = 64
"""Characters shown of each."""
HOTWORDS_TEXT_CHARS_MAX = 65_536
"""Length of hotwords in one string, weights and spaces included; then ``bad_message``."""
CONFIDENCE = 1.0
"""Some protocols require a confidence; this is sent if the model returns none."""
BINARY_JSON_BYTES_MAX = 4_096
"""Largest JSON object in a binary message, in protocols whose audio is never JSON."""
_BEFORE_JSON = b"\xef\xbb\xbf \t\r\n"
"""Bytes of a byte order mark, and spaces."""

SessionId = Annotated[str, Meta(pattern=rf"\A{SESSION_ID_PATTERN}\Z")]
UserId = Annotated[str, Meta(max_length=USER_ID_CHARS_MAX)]
Language = Annotated[str, Meta(max_length=LANGUAGE_CHARS_MAX)]
Model = Annotated[str, Meta(max_length=MODEL_CHARS_MAX)]
Hotword = Annotated[str, Meta(max_length=HOTWORD_CHARS_MAX)]
Hotwords = Annotated[tuple[Hotword, ...], Meta(max_length=HOTWORDS_MAX)]
ResumeToken = Annotated[str, Meta(max_length=RESUME_TOKEN_CHARS_MAX)]
SampleRateHz = Annotated[int, Meta(ge=RAW_SAMPLE_RATE_HZ_MIN, le=RAW_SAMPLE_RATE_HZ_MAX)]
Index = Annotated[int, Meta(ge=0, le=INDEX_MAX)]


def storable(value: str, name: str) -> str:
    """Return ``value``. Raises ``MessageError`` if it has NUL, which PostgreSQL cannot hold, or a
    lone surrogate, which UTF-8 cannot."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise MessageError(f"{name} has characters that cannot be stored")
    return value


def storable_hotwords(words: Iterable[str], name: str) -> tuple[str, ...]:
    """Return ``words`` without spaces around them and without empty ones. Raises ``MessageError``
    if they exceed the limits of ``Hotwords``, or one cannot be stored."""
    kept = tuple(filter(None, map(str.strip, words)))
    if len(kept) > HOTWORDS_MAX:
        raise MessageError(f"{name}: at most {HOTWORDS_MAX} words")
    if any(len(word) > HOTWORD_CHARS_MAX for word in kept):
        raise MessageError(f"{name}: at most {HOTWORD_CHARS_MAX} characters in each")
    return tuple(storable(word, name) for word in kept)


def shown_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the first of ``names``, cut, as warnings show them: a client may send any number."""
    return tuple(name[:NAME_CHARS_SHOWN_MAX] for name in itertools.islice(names, NAMES_SHOWN_MAX))


def as_text(message: str | bytes, name: str = "") -> str | bytes:
    """Return ``message`` as a text if it is a JSON object: a short one, or one of any length that
    has ``name``. Some clients send all of their messages as binary ones. Audio cannot look like
    this."""
    if not isinstance(message, bytes) or (not name and len(message) > BINARY_JSON_BYTES_MAX):
        return message
    begin = message.lstrip(_BEFORE_JSON)
    if begin[:1] == b"{" and begin.rstrip()[-1:] == b"}":
        with contextlib.suppress(ValueError, RecursionError):
            text = begin.decode()
            is_object = f'"{name}"' in text if name else isinstance(json.loads(text), dict)
            return text if is_object else message
    return message


def truth(value: object) -> bool | None:
    """Return the meaning of ``true``, 1 or ``"true"``, and of the opposites; None: neither."""
    if isinstance(value, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    return bool(value) if type(value) in (bool, int, float) and value in (0, 1) else None


def confidence_or_default(confidence: float | None) -> float:
    """Return a confidence for protocols in which it is not optional."""
    return CONFIDENCE if confidence is None else confidence


def in_range(rate_hz: float, name: str) -> int:
    """Return the sample rate as an integer. Raises ``MessageError`` if raw PCM may not have it, or
    it is NaN."""
    if not RAW_SAMPLE_RATE_HZ_MIN <= rate_hz <= RAW_SAMPLE_RATE_HZ_MAX:
        raise MessageError(
            f"{name} must be from {RAW_SAMPLE_RATE_HZ_MIN} to {RAW_SAMPLE_RATE_HZ_MAX}"
        )
    return int(rate_hz)


_BETWEEN_PHRASES = re.compile(r"[,;，；、\n]+|[.。!?！？]+(?:\s+|$)")
_CHINESE = re.compile("[\u4e00-\u9fff]")
PHRASE_WORDS_MAX = 4
PHRASE_CHINESE_CHARS_MAX = 8
"""A longer phrase is a sentence, which contains common words besides hotwords."""


def prompt_hotwords(prompt: str) -> tuple[str, ...]:
    """Return the words and short phrases that ``prompt`` lists; none if it is prose, or exceeds
    the limits of ``Hotwords``."""
    phrases = tuple(filter(None, map(str.strip, _BETWEEN_PHRASES.split(prompt))))
    listed = len(phrases) <= HOTWORDS_MAX and all(
        len(phrase) <= HOTWORD_CHARS_MAX
        and len(phrase.split()) <= PHRASE_WORDS_MAX
        and len(_CHINESE.findall(phrase)) <= PHRASE_CHINESE_CHARS_MAX
        for phrase in phrases
    )
    return phrases if listed else ()
