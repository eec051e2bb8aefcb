"""Simulated audio, and a recogniser whose text is a hash of it: a lost, doubled, swapped or
cross-routed result shows as a wrong text."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

BYTES_PER_MS = 32


@dataclass(frozen=True, slots=True)
class Segment:
    """What an utterance's audio is made of."""

    session_id: str
    seq: int
    end_ms: int
    poison: bool
    """Whoever recognises it crashes."""


def pcm_of(segment: Segment, audio_ms: int) -> bytes:
    label = f"{segment.session_id}|{segment.seq}|{segment.end_ms}|{segment.poison:d}|"
    return label.encode().ljust(audio_ms * BYTES_PER_MS, b"\0")


def segment_of(pcm: bytes) -> Segment:
    session_id, seq, end_ms, poison, _ = pcm.split(b"|", 4)
    return Segment(session_id.decode(), int(seq), int(end_ms), poison == b"1")


def text_of(pcm: bytes) -> str:
    return f"{zlib.crc32(pcm):08x}"
