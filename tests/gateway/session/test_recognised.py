"""What a model recognised besides words, over several segments."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.session import events as e
from gateway.session.recognised import confidence, main_language, recognised


def segment(duration_ms: int = 1_000, text: str = "x", **fields: Any) -> e.SegmentText:
    return e.SegmentText(
        session_id="s",
        chunk_index=0,
        segment_index=0,
        start_ms=500,
        end_ms=500 + duration_ms,
        text=text,
        **fields,
    )


def test_the_main_language_is_that_of_most_of_the_audio() -> None:
    segments = [
        segment(1_000, language="en"),
        segment(3_000, language="zh"),
        segment(1_500, language="en"),
        segment(9_000, "", language="ja"),  # Nothing was said in it.
        segment(9_000),
    ]
    assert main_language(segments) == "zh"
    assert main_language([segment()]) == ""


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([], None),
        ([segment()], None),
        ([segment(1_000, confidence=0.5), segment(3_000, confidence=0.9)], 0.8),
        ([segment(confidence=0.5), segment()], None),
        ([segment(confidence=0.5), segment(text="")], 0.5),
        ([segment(0, confidence=0.5)], 0.5),
    ],
)
def test_the_confidence_is_the_mean(segments: list[e.SegmentText], expected: float | None) -> None:
    assert confidence(segments) == (expected if expected is None else pytest.approx(expected))


def test_only_known_values_are_reported() -> None:
    assert recognised([segment()]) == {}
    happy = segment(language="zh", confidence=0.0, emotion="happy", events=("laughter", "music"))
    assert recognised([happy, segment(language="zh", confidence=0.0, events=("music",))]) == {
        "language": "zh",
        "confidence": 0.0,
        "emotion": "happy",
        "events": ["laughter", "music"],
    }
    assert "emotion" not in recognised([happy, segment(emotion="sad")])
