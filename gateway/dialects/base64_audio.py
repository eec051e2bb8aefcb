"""Core: audio in base64, in the forms in which clients write it.

The ordinary form is RFC 4648 with padding and nothing else. The others are a data URL, line breaks,
no padding, and the alphabet that is safe in URLs; the search for them takes six times as long.
"""

from __future__ import annotations

import binascii
import contextlib
import re

from gateway.dialects.dialect import MessageError

_DATA_URL = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
_SPACES = str.maketrans({" ": None, "\t": None, "\r": None, "\n": None, "-": "+", "_": "/"})
_FOREIGN = re.compile(r"[^A-Za-z0-9+/]")


def decode(text: str, name: str) -> bytes:
    """Return the audio in ``text``, the field ``name``. Raises ``MessageError`` (``bad_base64``)
    with the fault."""
    with contextlib.suppress(ValueError):
        return binascii.a2b_base64(text, strict_mode=True)
    if (prefix := _DATA_URL.match(text)) is not None:
        if not prefix[0].lower().endswith(";base64,"):
            raise _bad(name, "the data URL is not ;base64")
        text = text[prefix.end() :]
    digits = text.translate(_SPACES).rstrip("=")
    if (foreign := _FOREIGN.search(digits)) is not None:
        if foreign[0] == "=":
            raise _bad(name, "there is audio behind the padding")
        raise _bad(name, f"{foreign[0]!r} is no character of base64")
    if len(digits) % 4 == 1:
        raise _bad(name, f"{len(digits)} characters without padding are not possible")
    return binascii.a2b_base64(digits + "=" * (-len(digits) % 4))


def _bad(name: str, message: str) -> MessageError:
    return MessageError(f"{name}: {message}", "bad_base64")
