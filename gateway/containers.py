"""Which container a chunk of audio begins, by its magic, and the error for unusable audio."""

from __future__ import annotations

from typing import Literal

Container = Literal["wav", "matroska", "ogg", "flac", "mp3"]
"""Named as in libavformat."""


class AudioError(Exception):
    """Audio that a client sent cannot be used.

    ``code`` is stable for programs: ``bad_audio``, ``audio_too_long``, ``overloaded``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
