"""Core: search terms of texts, and PostgreSQL's full-text queries for them.

A term is a word, or two adjacent characters of a script without spaces between words, whose
sentences PostgreSQL's own parser takes for one word. The last character of such a run is a term by
itself, so that each single character begins a term.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise

TERMS_BYTES_MAX = 1 << 19
"""UTF-8 bytes of a session's different terms: hours of speech. A text is not found by the terms
beyond it. PostgreSQL's limit of a tsvector is twice that."""
WORD_CHARS_MAX = 64
"""Longer words are cut."""

_UNSPACED = "".join(
    f"{chr(first)}-{chr(last)}"
    for first, last in (
        (0x0E00, 0x0EFF),  # Thai, Lao
        (0x1000, 0x109F),  # Myanmar
        (0x1780, 0x17FF),  # Khmer
        (0x3005, 0x3007),  # ideographic marks
        (0x3040, 0x30FF),  # kana
        (0x3400, 0x4DBF),  # CJK extension A
        (0x4E00, 0x9FFF),  # CJK unified ideographs
        (0xAC00, 0xD7AF),  # Hangul, whose spaces separate phrases
        (0xF900, 0xFAFF),  # compatibility ideographs
        (0x20000, 0x3FFFF),  # CJK extensions B and beyond
    )
)
_ENDS_UNSPACED = re.compile(f"[{_UNSPACED}]\\s*\\Z")
_BEGINS_UNSPACED = re.compile(f"\\s*[{_UNSPACED}]")
_PIECE = re.compile(
    rf"(?P<run>[{_UNSPACED}]+)|(?P<word>[^\W_{_UNSPACED}]+(?:'[^\W_{_UNSPACED}]+)*)(?P<more>\*?)"
)


def terms_of(texts: Iterable[str]) -> list[str]:
    """Return the different terms of ``texts``, which are consecutive parts of one text."""
    found: dict[str, None] = {}
    left = TERMS_BYTES_MAX
    for term in _terms(_normal(_joined(texts))):
        if term not in found:
            left -= len(term.encode())
            if left < 0:
                break
            found[term] = None
    return list(found)


def query_of(wanted: str) -> str:
    """Return the ``tsquery`` for texts that have all of ``wanted``; ``""``: no letter or digit.

    A word is found as a whole, or with ``*`` behind it by its beginning.
    """
    return " & ".join(dict.fromkeys(_conditions(_normal(wanted))))


def first_word(wanted: str) -> str:
    """Return the first word, or run of characters, that ``query_of`` looks for; ``""``: none."""
    piece = _PIECE.search(_normal(wanted))
    return "" if piece is None else piece["run"] or piece["word"]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("’", "'")


def _joined(texts: Iterable[str]) -> str:
    parts = ["", *texts]
    return "".join(
        after if _ENDS_UNSPACED.search(before) and _BEGINS_UNSPACED.match(after) else f" {after}"
        for before, after in pairwise(parts)
    )


def _terms(text: str) -> Iterator[str]:
    for piece in _PIECE.finditer(text):
        run = piece["run"]
        if run is None:
            yield piece["word"][:WORD_CHARS_MAX]
        else:
            yield from (run[i : i + 2] for i in range(len(run)))


def _conditions(text: str) -> Iterator[str]:
    for piece in _PIECE.finditer(text):
        run = piece["run"]
        if run is None:
            word = piece["word"][:WORD_CHARS_MAX].replace("'", "''")
            yield f"'{word}'{':*' if piece['more'] else ''}"
        elif len(run) == 1:
            yield f"'{run}':*"
        else:
            yield from (f"'{run[i : i + 2]}'" for i in range(len(run) - 1))
