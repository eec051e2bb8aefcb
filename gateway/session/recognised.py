"""Core: the language, confidence, emotion and sound events of several segments as one value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gateway.session import events as e


def main_language(segments: Sequence[e.SegmentText]) -> str:
    """The language of most of the recognised audio; ``""``: the model does not report it."""
    spoken: Counter[str] = Counter()
    for segment in segments:
        if segment.language and segment.text:
            spoken[segment.language] += segment.end_ms - segment.start_ms
    return spoken.most_common(1)[0][0] if spoken else ""


def confidence(segments: Sequence[e.SegmentText]) -> float | None:
    """The mean over the recognised audio, if the model gives every segment one."""
    given = [(s.confidence, max(1, s.end_ms - s.start_ms)) for s in segments if s.text]
    known = [(value, duration_ms) for value, duration_ms in given if value is not None]
    if not known or len(known) < len(given):
        return None
    whole_ms = sum(duration_ms for _, duration_ms in known)
    return sum(value * duration_ms for value, duration_ms in known) / whole_ms


def emotion(segments: Sequence[e.SegmentText]) -> str:
    """The emotion of all segments that have one; ``""``: there is none, or several."""
    emotions = {segment.emotion for segment in segments if segment.emotion}
    return emotions.pop() if len(emotions) == 1 else ""


def sound_events(segments: Sequence[e.SegmentText]) -> tuple[str, ...]:
    """The different events, in order."""
    return tuple(dict.fromkeys(event for segment in segments for event in segment.events))


def recognised(segments: Sequence[e.SegmentText]) -> dict[str, Any]:
    """The fields that have a value: ``language``, ``confidence``, ``emotion``, ``events``."""
    fields = {
        "language": main_language(segments) or None,
        "confidence": confidence(segments),
        "emotion": emotion(segments) or None,
        "events": list(sound_events(segments)) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}
