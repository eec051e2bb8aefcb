"""Inverse text normalisation: numbers, dates and units in digits (WeTextProcessing's grammars)."""

from __future__ import annotations

import functools
import re
from typing import Any

import structlog

# The library's parser fails at these characters, or writes them with another backslash.
_APART = re.compile(r'(["\\]+)')
_BEFORE_A_MARK = re.compile(r" +(?=[,.?!;:](?!\S))")


def written(text: str) -> str:
    """Return ``text`` with "twenty five" and "二十五" as "25". Text that the grammars do not accept
    stays as it is."""
    parts = _APART.split(text)
    parts[::2] = [_part(part) if part.strip() else part for part in parts[::2]]
    return _BEFORE_A_MARK.sub("", "".join(parts))


def _part(text: str) -> str:
    """Normalise a part without quotation marks. The library removes the spaces around it."""
    core = text.strip()
    try:
        found: str = _normalizer().normalize(core)
    except Exception as error:
        structlog.get_logger().warning("not_normalized", reason=type(error).__name__)
        return text
    return text.replace(core, found, 1)


@functools.cache
def _normalizer() -> Any:
    """Import on first use: the library reads its grammars, 0.5 s and 36 MB."""
    import wetext

    return wetext.Normalizer(lang="auto", operator="itn")
