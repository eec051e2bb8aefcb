"""OpenAI's API: forms and answers. Its own client is tested in tests/integration."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from msgspec import structs
from openai.types.audio import TranscriptionDiarized, TranscriptionTextSegmentEvent

from gateway.dialects import openai
from gateway.dialects.dialect import MessageError
from gateway.dialects.fields import NAME_CHARS_SHOWN_MAX, NAMES_SHOWN_MAX
from gateway.dialects.openai import Transcript
from gateway.session import events as e
from wire.messages import ServedModel, Token

SEGMENT = e.SegmentText(
    session_id="id",
    chunk_index=0,
    segment_index=0,
    start_ms=50,
    end_ms=450,
    text="one",
    tokens=(Token(text="one", start_ms=100, end_ms=400),),
)
TRANSCRIPT = Transcript(
    text="one",
    duration_ms=2_500,
    segments=(
        SEGMENT,
        structs.replace(SEGMENT, start_ms=900, end_ms=950, text="", tokens=()),
    ),
)
WARNING = e.SessionWarning(code="language_ignored", message="模型")


def request(**fields: str) -> openai.Request:
    return openai.parse({"model": ["demo"], **{name: [value] for name, value in fields.items()}})


def test_omitted_fields_have_defaults() -> None:
    prose = "Words of the last part of this text."
    asked = request(prompt=prose, include="too")
    assert asked == openai.Request(
        start=asked.start,
        response_format="json",
        granularities=frozenset({"segment"}),
        stream=False,
    )
    assert asked.start.ignored_fields == ("include", "prompt")
    assert (asked.start.model, asked.start.language, asked.start.speakers) == ("demo", "", False)
    assert openai.parse({"model": ["whisper-1"]}).start.model == ""
    start = request(language="en").start
    assert (start.language, start.encoded) == ("en", True)
    assert (start.punctuation, start.itn) == (None, None)


@pytest.mark.parametrize(
    ("fields", "hotwords"),
    [
        ({"prompt": ["Kubernetes, kubectl"]}, ("Kubernetes", "kubectl")),
        ({"keywords[]": ["San Francisco", "Bay"]}, ("San Francisco", "Bay")),
        ({"keywords": ["Bay"], "prompt": ["A, B"]}, ("Bay", "A", "B")),
    ],
)
def test_words_to_expect_are_hotwords(
    fields: dict[str, list[str]], hotwords: tuple[str, ...]
) -> None:
    asked = openai.parse({"model": ["demo"], **fields})
    assert asked.start.hotwords == hotwords and asked.start.ignored_fields == ()


@pytest.mark.parametrize(
    ("fields", "language", "ignored"),
    [
        ({"languages[]": ["en"]}, "en", ()),
        ({"languages": ["en", "zh"]}, "", ("languages[]",)),
        ({"languages[]": ["en"], "language": ["zh"]}, "zh", ("languages[]",)),
        ({"timestamp_granularities[]": ["segment", "x"]}, "", ("timestamp_granularities[]",)),
        (
            {"chunking_strategy": ["auto"], "include[]": ["logprobs"]},
            "",
            ("chunking_strategy", "include[]"),
        ),
    ],
)
def test_useless_options_are_reported_and_not_refused(
    fields: dict[str, list[str]], language: str, ignored: tuple[str, ...]
) -> None:
    asked = openai.parse({"model": ["demo"], **fields})
    assert (asked.start.language, asked.start.ignored_fields) == (language, ignored)


@pytest.mark.parametrize(
    "name",
    ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe-2025-12-15", "gpt-transcribe"],
)
def test_names_of_openais_models_mean_any(name: str) -> None:
    assert openai.parse({"model": [name]}).start.model == ""


def test_the_written_form_is_an_option() -> None:
    start = request(punctuation="False", itn="1").start
    assert (start.punctuation, start.itn) == (False, True)


def test_the_format_or_the_models_name_asks_for_speakers() -> None:
    for fields in ({"response_format": "diarized_json"}, {"model": "gpt-4o-transcribe-diarize"}):
        assert request(**fields).start.speakers
    assert not request().start.speakers


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": " "}, "model"),
        ({"response_format": "xml"}, "response_format"),
        ({"language": "x" * 33}, "language"),
        ({"language": "a\0"}, "language"),
        ({"language": "\ud800"}, "language"),
        ({"temperature": "nan"}, "temperature"),
        ({"temperature": "2"}, "temperature"),
        ({"stream": "maybe"}, "stream"),
        ({"itn": "maybe"}, "itn"),
        ({"punctuation": "2"}, "punctuation"),
        (
            {"timestamp_granularities[]": "letter", "response_format": "verbose_json"},
            "timestamp_granularities[]",
        ),
        ({"keywords[]": "x" * 99}, "keywords[]"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, str], param: str) -> None:
    with pytest.raises(MessageError) as error:
        request(**fields)
    assert error.value.param == param


def test_each_format() -> None:
    usage = {"type": "duration", "seconds": 3}
    assert json.loads(openai.encode(TRANSCRIPT, request())) == {"text": "one", "usage": usage}
    assert openai.encode(TRANSCRIPT, request(response_format="text")) == "one\n"
    times = "00:00:00,100 --> 00:00:00,400"
    assert openai.encode(TRANSCRIPT, request(response_format="srt")) == f"1\n{times}\none\n"
    assert "00:00:00.100" in openai.encode(TRANSCRIPT, request(response_format="vtt"))


def test_verbose_json_has_the_requested_granularities() -> None:
    verbose = {"response_format": "verbose_json", "language": "en"}
    body = json.loads(openai.encode(TRANSCRIPT, request(**verbose)))
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "en", 2.5)
    (segment,) = body["segments"]
    assert (segment["id"], segment["start"], segment["end"]) == (0, 0.05, 0.45)
    assert "words" not in body
    asked = request(**verbose, **{"timestamp_granularities[]": "word"})
    body = json.loads(openai.encode(TRANSCRIPT, asked))
    assert body["words"] == [{"word": "one", "start": 0.1, "end": 0.4}]
    assert "segments" not in body


def test_diarized_json() -> None:
    numbers = (1, 27, None)
    turns = [structs.replace(SEGMENT, start_ms=0, end_ms=500, speaker=number) for number in numbers]
    transcript = Transcript(text="one one one", duration_ms=2_500, segments=tuple(turns))
    asked = request(response_format="diarized_json")
    body = TranscriptionDiarized.model_validate_json(openai.encode(transcript, asked))
    assert [turn.speaker for turn in body.segments] == ["A", "27", "unknown"]
    assert [turn.id for turn in body.segments] == ["seg_000", "seg_001", "seg_002"]
    assert (body.duration, body.text, body.segments[0].end) == (2.5, "one one one", 0.5)
    assert body.usage is not None and body.usage.type == "duration" and body.usage.seconds == 3
    event = openai.turn(3, turns[0])
    found = TranscriptionTextSegmentEvent.model_validate_json(event.removeprefix("data: "))
    assert (found.id, found.speaker) == ("seg_003", "A")


def test_what_the_model_recognised_besides_words() -> None:
    plain = json.loads(openai.encode(TRANSCRIPT, request(response_format="verbose_json")))
    assert (plain["language"], plain["segments"][0]["avg_logprob"]) == ("", 0.0)
    known = structs.replace(SEGMENT, language="zh", confidence=0.5, events=("music",))
    transcript = replace(TRANSCRIPT, segments=(known,))
    asked = request(response_format="verbose_json", language="en")
    body = json.loads(openai.encode(transcript, asked))
    assert body["language"] == "zh"
    (segment,) = body["segments"]
    assert segment["avg_logprob"] == pytest.approx(math.log(0.5))
    assert (segment["language"], segment["confidence"], segment["events"]) == ("zh", 0.5, ["music"])
    nothing = replace(TRANSCRIPT, segments=(structs.replace(known, confidence=0.0),))
    assert json.loads(openai.encode(nothing, asked))["segments"][0]["avg_logprob"] < -10


def test_warnings_are_in_the_body_or_in_a_header() -> None:
    warned = replace(TRANSCRIPT, warnings=(WARNING,))
    reported = [{"code": "language_ignored", "message": "模型"}]
    for wanted in ("json", "verbose_json"):
        assert (
            json.loads(openai.encode(warned, request(response_format=wanted)))["warnings"]
            == reported
        )
    assert json.loads(openai.done("", (WARNING,))[6:])["warnings"] == reported
    (header,) = openai.warnings_header((WARNING,)).values()
    assert header.isascii() and json.loads(header) == reported
    assert openai.warnings_header(()) == {}


def test_fields_without_an_effect_are_named() -> None:
    asked = request(include="p", temperature="0.5", langauge="zh", stream="true")
    assert asked.start.ignored_fields == ("include", "langauge", "temperature")
    assert request(temperature="0").start.ignored_fields == ()
    # Events of a stream have neither times nor the form of a file.
    subtitles = request(stream="true", response_format="srt")
    assert subtitles.start.ignored_fields == ("response_format",)
    assert request(stream="true", response_format="diarized_json").start.ignored_fields == ()
    # They are in a header of the answer.
    many = request(**{f"{n:0100}": "1" for n in range(100)}).start.ignored_fields
    assert [len(name) for name in many] == [NAME_CHARS_SHOWN_MAX] * NAMES_SHOWN_MAX


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (429, "rate_limit_error"), (503, "server_error")],
)
def test_errors(status: int, kind: str) -> None:
    body = openai.error(status, "code", "why", "file")
    assert body == {"error": {"message": "why", "type": kind, "param": "file", "code": "code"}}


def test_events_and_models() -> None:
    assert json.loads(openai.delta("一").removeprefix("data: ")) == {
        "type": "transcript.text.delta",
        "delta": "一",
    }
    assert openai.done("一", ()).endswith("\n\n")
    assert json.loads(openai.failed("code", "why")[6:])["error"]["message"] == "why"
    served = ServedModel(name="zh", model="paraformer-zh", workers=2)
    assert openai.models([served]) == {"object": "list", "data": [openai.model(served)]}
    assert (openai.model(served)["id"], openai.model(served)["model"]) == ("zh", "paraformer-zh")
