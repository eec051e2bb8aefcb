"""Core: files of which less arrived than their headers declare."""

from __future__ import annotations

MISSING_S_MIN = 0.5
"""Less missing audio is the difference between codecs and their containers."""
PLACEHOLDER_BYTES_MIN = 0x7F00_0000
"""A header that declares more is that of a stream: its writer did not know the length."""
MISSING_BYTES_MIN = 16
"""Fewer missing bytes at the end are padding that some writers leave out."""


def missing(declared_s: float, bytes_per_s: float, heard_s: float) -> str:
    """Return a message if a file has ended early. ``declared_s``: the duration in its header, or 0;
    ``bytes_per_s``: those of its codec, or 0 if they vary."""
    is_cut = declared_s - heard_s >= MISSING_S_MIN
    if not is_cut or declared_s * bytes_per_s >= PLACEHOLDER_BYTES_MIN:
        return ""
    return f"the file is cut: its header declares {declared_s:.1f} s of audio, {heard_s:.1f} s came"


def cut_within(missing_bytes: int) -> str:
    """Return a message if a file has ended in the middle of a unit, which has that many bytes more
    by its own header."""
    if not MISSING_BYTES_MIN <= missing_bytes < PLACEHOLDER_BYTES_MIN:
        return ""
    return f"the file is cut: {missing_bytes} bytes that it declares did not come"
