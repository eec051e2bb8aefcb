"""Configurations of a Realtime session: both shapes, partial updates, and what has no effect."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.dialect import MessageError
from gateway.dialects.realtime_session import RealtimeSession, updated
from gateway.session.endpointer import Endpointing

NEW = RealtimeSession()


def after(before: RealtimeSession = NEW, **fields: Any) -> RealtimeSession:
    session, warnings = updated(before, fields)
    assert warnings == ()
    return session


def codes(**fields: Any) -> list[str]:
    return [warning.code for warning in updated(NEW, fields)[1]]


def nested(**fields: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": fields}}


def test_both_shapes_say_the_same() -> None:
    turns = {"type": "server_vad", "silence_duration_ms": 300}
    transcription = {"model": "gpt-4o-transcribe", "language": "en", "prompt": "a, b"}
    flat = after(
        input_audio_format="g711_ulaw",
        input_audio_transcription=transcription,
        turn_detection=turns,
    )
    deep = after(
        **nested(format={"type": "audio/pcmu"}, transcription=transcription, turn_detection=turns)
    )
    assert flat == deep
    assert (deep.format, deep.rate_hz, deep.language) == ("ulaw", 8_000, "en")
    assert deep.start("s").hotwords == ("a", "b")
    assert flat.flat()["input_audio_format"] == "g711_ulaw"
    shown = deep.nested()["audio"]["input"]
    assert shown["format"] == {"type": "audio/pcmu"}
    assert shown["turn_detection"] == {"type": "server_vad", "silence_duration_ms": 300}
    assert shown["transcription"] == transcription
    # What is shown can be sent back.
    assert after(**deep.nested()) == deep and after(**flat.flat()) == flat


def test_an_update_changes_the_fields_that_it_has() -> None:
    session = after(**nested(transcription={"model": "demo", "language": "en"}))
    session = after(session, **nested(transcription={"prompt": "digits"}))
    assert (session.model, session.language, session.prompt) == ("demo", "en", "digits")
    session = after(session, **nested(transcription={"language": None}))
    assert (session.model, session.language) == ("demo", "")
    session = after(session, **nested(format={"type": "audio/pcm", "rate": 16_000}))
    assert session.rate_hz == 16_000
    assert after(session, **nested(format=None)).rate_hz == 24_000


@pytest.mark.parametrize(
    ("fields", "commits"),
    [
        ({}, False),
        ({"transcription": {"model": "gpt-realtime-whisper"}}, True),
        ({"transcription": {"model": "gpt-realtime-whisper"}, "turn_detection": {}}, False),
        ({"turn_detection": None}, True),
        ({"turn_detection": {"type": "none"}}, True),
        ({"turn_detection": {"type": "server_vad"}}, False),
    ],
)
def test_who_commits(fields: dict[str, Any], commits: bool) -> None:
    session = after(**nested(**fields))
    assert session.client_commits is commits
    assert session.start("s").speech_events is not commits
    assert (session.nested()["audio"]["input"]["turn_detection"] is None) is commits


def test_turn_detection_is_the_endpointers() -> None:
    assert after(**nested(turn_detection={"type": "server_vad"})).endpointing == Endpointing()
    turns = {"threshold": 0.5, "prefix_padding_ms": 600, "silence_duration_ms": 350}
    assert after(**nested(turn_detection=turns)).endpointing == Endpointing(
        silence_ms=350, pre_roll_ms=600
    )
    thresholds = [
        after(**nested(turn_detection={"threshold": value})).endpointing.start_threshold
        for value in (0.25, 0.75, 1)
    ]
    assert thresholds == pytest.approx([0.075, 0.575, 1.0])


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({"include": ["item.input_audio_transcription.logprobs"]}, ["field_ignored"]),
        ({"type": "realtime", "voice": "ash"}, ["responses_unavailable", "field_ignored"]),
        (nested(noise_reduction={"type": "near_field"}), ["field_ignored"]),
        (nested(noise_reduction=None), []),
        (nested(transcription={"delay": "low"}), ["field_ignored"]),
        (nested(transcription={"languages": ["en", "zh"]}), ["field_ignored"]),
        (
            nested(transcription={"prompt": "Write all of the numbers as digits."}),
            ["prompt_ignored"],
        ),
        (nested(transcription=None), ["field_ignored"]),
        (nested(turn_detection={"type": "semantic_vad"}), ["semantic_vad_unavailable"]),
        (nested(turn_detection={"silence_duration_ms": 10}), ["value_limited"]),
        (nested(turn_detection={"threshold": 1.5}), ["value_limited"]),
        (nested(turn_detection={"threshold": 1}), []),
        (nested(format={"type": "audio/pcmu", "rate": 16_000}), ["value_limited"]),
        (nested(format={"type": "audio/pcma", "rate": 8_000}), []),
        (nested(turn_detection={"create_response": True}), ["field_ignored"]),
        (nested(turn_detection={"create_response": False}), []),
        ({f"unknown{n}": 1 for n in range(40)}, ["field_ignored"] * 16),
    ],
)
def test_fields_without_effect_are_reported(fields: dict[str, Any], reported: list[str]) -> None:
    assert codes(**fields) == reported


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (nested(format={"type": "audio/mp3"}), "session.audio.input.format"),
        (nested(format={"type": "audio/pcm", "rate": 1}), "session.audio.input.format.rate"),
        ({"input_audio_format": "opus"}, "session.audio.input.format"),
        (nested(turn_detection={"type": "magic"}), "session.audio.input.turn_detection.type"),
        ({"turn_detection": {"threshold": "high"}}, "session.turn_detection.threshold"),
        (
            nested(transcription={"language": "x" * 99}),
            "session.audio.input.transcription.language",
        ),
        ({"audio": []}, "session.audio"),
    ],
)
def test_an_invalid_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(MessageError, match=f"^{param}: "):
        updated(NEW, fields)


@pytest.mark.parametrize("fields", [None, [], "session"])
def test_a_session_is_an_object(fields: Any) -> None:
    with pytest.raises(MessageError) as error:
        updated(NEW, fields)
    assert error.value.code == "invalid_type"


def test_characters_that_cannot_be_stored_are_refused() -> None:
    for value in ("\0", "\ud800"):
        with pytest.raises(MessageError):
            updated(NEW, nested(transcription={"language": value}))
