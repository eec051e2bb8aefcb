"""Simulated audio, and a recogniser whose text is a hash of the audio: a lost, duplicated,
reordered or wrongly routed result shows as a wrong text."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

BYTES_PER_MS = 32
POISON = b"poison"
"""Audio with this crashes the worker that recognises it."""
_ACCENT = re.compile(r"~\S*")


@dataclass(frozen=True, slots=True)
class Segment:
    """The content of the audio of an utterance."""

    session_id: str
    seq: int
    end_ms: int
    poison: bool


def pcm_of(segment: Segment, audio_ms: int) -> bytes:
    label = f"{segment.session_id}|{segment.seq}|{segment.end_ms}|".encode()
    label += POISON if segment.poison else b""
    return label.ljust(audio_ms * BYTES_PER_MS, b"\0")


def is_poison(pcm: bytes) -> bool:
    return POISON in pcm


def text_of(pcm: bytes) -> str:
    return f"{zlib.crc32(pcm):08x}"


VOICES = 3
_LABEL = re.compile(rb"[^|\0]+\|(\d+)\|\d+\|")


def voice_of(pcm: bytes) -> int:
    """The voice of an utterance in a client's audio: they take turns."""
    found = _LABEL.search(pcm)
    assert found is not None
    return int(found[1]) % VOICES


def embedding_of_voice(voice: int) -> bytes:
    """Equal for the utterances of a voice; those of two voices have nothing in common."""
    return struct.pack(f"<{VOICES}f", *(float(voice == each) for each in range(VOICES)))


def without_accent(text: str) -> str:
    """Texts without the names of the workers that recognised them (``Options.accents``)."""
    return _ACCENT.sub("", text)
