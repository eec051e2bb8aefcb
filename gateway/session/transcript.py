"""Joins the texts of segments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

_WIDE_RANGES = (
    (0x2E80, 0x303F),  # radicals, CJK punctuation
    (0x3040, 0x30FF),  # kana
    (0x3100, 0x31FF),  # bopomofo, extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK unified ideographs
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFE30, 0xFE4F),  # compatibility forms
    (0xFF00, 0xFFEF),  # full-width forms
    (0x20000, 0x3FFFF),  # CJK extensions B and beyond
)
_WIDE = "".join(f"{chr(first)}-{chr(last)}" for first, last in _WIDE_RANGES)
_WORD = re.compile(f"[{_WIDE}]|[^\\s{_WIDE}]+")


def is_cjk(character: str) -> bool:
    """Whether ``character`` is written without spaces around it (Chinese, kana, full width)."""
    point = ord(character)
    return any(first <= point <= last for first, last in _WIDE_RANGES)


def join_texts(texts: Iterable[str]) -> str:
    """Join texts without a space between CJK characters and with one space between other words."""
    parts = [stripped for text in texts if (stripped := text.strip())]
    return "".join(gap(before, after) + after for before, after in pairwise(["", *parts]))


def gap(before: str, after: str) -> str:
    """The separator of two texts when they are joined."""
    if not before or not after or (is_cjk(before[-1]) and is_cjk(after[0])):
        return ""
    return " "


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each word in ``text``. Each CJK character is a word."""
    return [match.span() for match in _WORD.finditer(text)]
