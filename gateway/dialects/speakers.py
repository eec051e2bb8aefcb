"""Core: speakers of segments in the answers of dialects."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from gateway.session import events as e


def with_speakers(segments: Sequence[e.SegmentText], end: e.Finished) -> list[e.SegmentText]:
    """Return ``segments`` with the speakers of ``end``, which corrects those sent before."""
    if end.speakers is None:
        return list(segments)
    return [replace(each, speaker=end.speakers[each.segment_index]) for each in segments]


def speaker_name(speaker: int) -> str:
    """The name of a speaker that is known by its number only."""
    return f"Speaker {speaker}"
