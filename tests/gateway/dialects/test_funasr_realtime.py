"""FunASR's newer protocol: its commands and results."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from gateway.dialects.dialect import TOO_MANY, WAITING_MAX, Ignored, MessageError, Reply
from gateway.dialects.funasr_realtime import FunasrEither, FunasrRealtime
from gateway.session import events as e
from wire.messages import Token

STARTED = {"event": "started"}
STOPPED = {"event": "stopped"}
SECOND = bytes(32_000)


def dialect() -> FunasrRealtime:
    numbers = itertools.count()
    return FunasrRealtime(lambda: f"session{next(numbers)}")


def said(talk: FunasrRealtime, message: str) -> dict[str, Any]:
    """The dialect's own reply to a command."""
    (reply,) = talk.parse(message)
    assert isinstance(reply, Reply)
    fields: dict[str, Any] = json.loads(reply.text)
    return fields


def speaking(*settings: str) -> FunasrRealtime:
    """After ``START`` and a second of audio."""
    talk = dialect()
    assert said(talk, "START") == STARTED
    for setting in settings:
        said(talk, setting)
    talk.parse(SECOND)
    return talk


def sent(talk: FunasrRealtime, answer: e.Answer) -> list[dict[str, Any]]:
    return [json.loads(message) for message in talk.encode(answer)]


def segment(index: int, text: str) -> e.SegmentText:
    return e.SegmentText(
        session_id="session0",
        chunk_index=0,
        segment_index=index,
        start_ms=1_000 * index,
        end_ms=1_000 * index + 900,
        text=text,
        tokens=(Token(text=text, start_ms=1_000 * index + 100, end_ms=1_000 * index + 800),),
    )


def sentence(index: int, text: str) -> dict[str, Any]:
    return {"text": text, "start": 1_000 * index + 100, "end": 1_000 * index + 800}


def result(*sentences: dict[str, Any], is_final: bool = False) -> dict[str, Any]:
    return {
        "sentences": list(sentences),
        "partial": "",
        "partial_start_ms": 0 if is_final else 1_000,
        "duration_ms": 1_000,
        "is_final": is_final,
    }


FINISHED = e.Finished(
    session_id="session0", text="", duration_ms=1_000, chunk_count=1, stored=False
)


def test_settings_follow_start_and_precede_the_audio() -> None:
    talk = dialect()
    assert said(talk, "start") == STARTED
    assert said(talk, "HOTWORDS: a b,阿里，") == {
        "event": "hotwords_set",
        "hotwords": ["a b", "阿里"],
    }
    assert said(talk, "LANGUAGE:中文") == {"event": "language_set", "language": "中文"}
    start, chunk = talk.parse(SECOND)
    assert isinstance(start, e.Start) and isinstance(chunk, e.Chunk)
    assert (start.session_id, start.hotwords, start.language) == ("session0", ("a b", "阿里"), "zh")
    assert start.partials and start.sample_rate_hz == 16_000
    assert said(talk, "LANGUAGE:")["warnings"][0]["code"] == "setting_late"


@pytest.mark.parametrize(
    ("named", "language"), [("English", "en"), ("Deutsch", "de"), ("zh", "zh"), ("", "")]
)
def test_languages_by_the_names_of_the_original(named: str, language: str) -> None:
    talk = dialect()
    talk.parse("START")
    talk.parse(f"LANGUAGE:{named}")
    start, _ = talk.parse(SECOND)
    assert isinstance(start, e.Start) and start.language == language


def test_corrections_by_hotwords_have_a_warning_that_they_have_no_effect() -> None:
    reported = said(dialect(), "POSTPROCESS_HOTWORDS:a=>b")
    assert (
        reported["event"] == "postprocess_hotwords_set" and reported["postprocess_hotwords"] == {}
    )
    assert reported["warnings"][0]["code"] == "hotwords_ignored"


def test_results_have_all_sentences_and_the_partial_one() -> None:
    talk = speaking()
    partial = e.PartialText(segment_index=0, text="on", start_ms=200, end_ms=900)
    assert sent(talk, partial) == [result() | {"partial": "on", "partial_start_ms": 200}]
    assert sent(talk, segment(0, "one")) == [result(sentence(0, "one"))]
    assert sent(talk, partial) == []  # Too late.
    assert sent(talk, segment(1, "")) == [result(sentence(0, "one"))]
    assert talk.parse("STOP") == (e.Finish(session_id="session0"),)
    assert sent(talk, segment(2, "two"))[0]["sentences"][1] == sentence(2, "two")
    final = result(sentence(0, "one"), sentence(2, "two"), is_final=True)
    assert sent(talk, FINISHED) == [final, STOPPED]


def test_one_recording_after_the_other() -> None:
    talk = speaking()
    talk.parse("STOP")
    assert talk.parse(SECOND) == (Ignored("behind_the_end"),)
    assert talk.parse("STOP") == ()
    assert sent(talk, FINISHED) == [result(is_final=True), STOPPED, STOPPED]
    assert said(talk, "STOP") == STOPPED
    assert said(talk, "START") == STARTED
    assert said(talk, "STOP") == STOPPED  # Without audio.
    assert said(talk, "START") == STARTED
    start, _ = talk.parse(SECOND)
    assert isinstance(start, e.Start) and start.session_id == "session2"


def test_a_flood_of_commits_and_stops_is_bounded() -> None:
    talk = speaking()
    for _ in range(WAITING_MAX):
        assert talk.parse("COMMIT") == (e.EndUtterance(),)
        talk.encode(e.SpeechEnded(end_ms=1_000, next_segment_index=1, requested=True))
    assert talk.parse("COMMIT") == (TOO_MANY,)
    assert len(sent(talk, segment(0, "one"))) == WAITING_MAX
    assert talk.parse("COMMIT") == (e.EndUtterance(),)
    for _ in range(WAITING_MAX):
        talk.parse("STOP")
    assert talk.parse("STOP") == (TOO_MANY,)
    assert sent(talk, FINISHED).count(STOPPED) == WAITING_MAX


def test_a_start_without_a_stop_begins_again() -> None:
    talk = speaking()
    finish, reply = talk.parse("START")
    assert finish == e.Finish(session_id="session0") and isinstance(reply, Reply)
    start, _ = talk.parse(SECOND)
    assert isinstance(start, e.Start) and start.session_id == "session1"
    assert sent(talk, segment(0, "old")) == sent(talk, FINISHED) == []
    assert sent(talk, segment(0, "new")) == [result(sentence(0, "new"))]


def test_commit_ends_an_utterance_and_not_the_recording() -> None:
    talk = speaking()
    sent(talk, segment(0, "one"))
    assert talk.parse("COMMIT") == (e.EndUtterance(),)
    ended = e.SpeechEnded(end_ms=1_000, next_segment_index=2, requested=True)
    assert sent(talk, ended) == []
    final = result(sentence(0, "one"), sentence(1, "two"), is_final=True)
    assert sent(talk, segment(1, "two")) == [final]
    assert sent(talk, ended) == [result(is_final=True)]
    talk.parse("STOP")
    assert sent(talk, FINISHED) == [result(is_final=True), STOPPED]


def test_commit_before_start_or_audio() -> None:
    talk = dialect()
    assert said(talk, "COMMIT") == {
        "event": "error",
        "error": "Session is not active; send START first",
    }
    talk.parse("START")
    assert said(talk, "COMMIT") == result(is_final=True) | {"duration_ms": 0}


def test_errors() -> None:
    talk = speaking()
    failed = e.Problem(code="chunk_failed", message="why", segment_index=0)
    error = {"event": "error", "error": "chunk_failed: why"}
    assert sent(talk, failed) == [error]
    ended = e.SpeechEnded(end_ms=1_000, next_segment_index=2, requested=True)
    sent(talk, ended)
    failed = e.Problem(code="chunk_failed", message="why", segment_index=1)
    assert sent(talk, failed) == [error, result(is_final=True)]
    damaged = e.Problem(code="bad_audio", message="why", chunk_index=0)
    assert len(sent(talk, damaged)) == 1 and sent(talk, damaged) == []
    assert sent(dialect(), damaged) == [{"event": "error", "error": "bad_audio: why"}]


@pytest.mark.parametrize(
    "message",
    [
        *("PAUSE", "{}", "HOTWORDS", "HOTWORDS:" + "x" * 65, "LANGUAGE:" + "x" * 33),
        *("HOTWORDS:" + "," * 70_000, "LANGUAGE:a\0b"),
    ],
    ids=range(7),
)
def test_a_wrong_message_is_an_error(message: str) -> None:
    with pytest.raises(MessageError):
        speaking().parse(message)


def test_commands_may_be_binary() -> None:
    talk = dialect()
    talk.parse(b"START")
    assert said(talk, "LANGUAGE:中文") == {"event": "language_set", "language": "中文"}
    (reply,) = talk.parse("HOTWORDS:阿里".encode())
    assert isinstance(reply, Reply) and json.loads(reply.text)["hotwords"] == ["阿里"]
    start, chunk = talk.parse(b"STOP" + SECOND)
    assert isinstance(start, e.Start) and isinstance(chunk, e.Chunk)
    assert talk.parse(b" stop\n") == (e.Finish(session_id="session0"),)


def test_json_is_an_error_in_a_binary_message_too() -> None:
    for message in ('{"action": "start"}', b'{"action": "start"}'):
        with pytest.raises(MessageError, match="one of START"):
            speaking().parse(message)


def test_warnings_are_in_the_next_message() -> None:
    talk = speaking()
    warning = e.SessionWarning(code="hotwords_ignored", message="m")
    started = e.Started(
        session_id="session0", resume_token="", next_chunk_index=0, warnings=(warning,)
    )
    assert sent(talk, started) == []
    (first,) = sent(talk, segment(0, "one"))
    assert first["warnings"] == [{"code": "hotwords_ignored", "message": "m"}]
    assert "warnings" not in sent(talk, segment(1, "two"))[0]
    last = sent(talk, structs.replace(FINISHED, warnings=(warning,)))[0]
    assert last["warnings"] == first["warnings"]


@pytest.mark.parametrize("message", ["START", " start\n", "HOTWORDS:a,b", "language: 中文", "STOP"])
@pytest.mark.parametrize("form", [str, str.encode])
def test_a_command_begins_the_newer_protocol(
    message: str, form: Callable[[str], str | bytes]
) -> None:
    (reply,) = FunasrEither(lambda: "a").parse(form(message))
    assert isinstance(reply, Reply) and "event" in json.loads(reply.text)


@pytest.mark.parametrize("message", ['{"mode": "2pass", "is_speaking": true}', b"ab"])
def test_json_or_audio_begins_the_older_one(message: str | bytes) -> None:
    talk = FunasrEither(lambda: "a")
    start, *_ = (*talk.parse(message), *talk.parse(b"ab"))
    assert isinstance(start, e.Start)
    with pytest.raises(MessageError):
        talk.parse("START")


def test_a_first_message_that_is_neither_is_an_error_of_the_older_one() -> None:
    with pytest.raises(MessageError):
        FunasrEither(lambda: "a").parse("hello")
