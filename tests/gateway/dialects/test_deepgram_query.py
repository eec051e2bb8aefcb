"""Options of the query of ``/v1/listen``: values, refusals, and warnings."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from gateway.audio.wav import DeclaredAudio
from gateway.dialects.deepgram_query import ENDPOINTING_MS_MIN, Options, parse_query
from gateway.dialects.dialect import MessageError
from gateway.dialects.fields import NAMES_SHOWN_MAX
from gateway.session.endpointer import CLIENT_SILENCE_MS_MAX, Endpointing


def options(query: str) -> Options:
    return parse_query(parse_qs(query, keep_blank_values=True), "r")


def reported(query: str) -> list[tuple[str, str]]:
    return [(warned.parameter, warned.type) for warned in options(query).warned]


def test_nothing_given_means_containers() -> None:
    start = options("").start
    assert (start.encoded, start.model, start.language, start.hotwords) == (True, "", "", ())
    assert (start.punctuation, start.itn, start.speakers, start.partials) == (
        *(None, None, False, False),
    )
    assert start.endpointing == Endpointing() and start.long_silence_ms is None


def test_an_empty_value_is_none() -> None:
    names = "encoding sample_rate channels language model keyterm endpointing utterance_end_ms"
    assert options("&".join(f"{name}=" for name in names.split())) == options("")


def test_what_livekit_sends() -> None:
    asked = options(
        "model=nova-3&punctuate=true&smart_format=false&no_delay=true&interim_results=true"
        "&encoding=linear16&vad_events=true&sample_rate=16000&channels=1&endpointing=25"
        "&filler_words=true&profanity_filter=false&numerals=false&mip_opt_out=false&language=en-US"
        "&keyterm=one&keyterm=two+three&tag=a"
    )
    start = asked.start
    assert start.declared_raw
    assert (start.model, start.model_optional, start.language) == ("nova-3", True, "en-US")
    assert (start.encoded, start.sample_rate_hz, start.hotwords) == (
        *(False, 16_000, ("one", "two three")),
    )
    assert (start.punctuation, start.itn, start.partials, asked.vad_events) == (
        *(True, False, True, True),
    )
    assert start.endpointing.silence_ms == ENDPOINTING_MS_MIN
    assert [(warned.parameter, warned.type) for warned in asked.warned] == [
        *(("endpointing", "changed"), ("filler_words", "not_offered")),
    ]


@pytest.mark.parametrize(
    ("query", "written"),
    [
        ("smart_format=true", (True, True)),
        ("smart_format=true&punctuate=false", (False, True)),
        ("smart_format=true&numerals=no", (True, False)),
        ("punctuate", (True, None)),
        ("numerals=1", (None, True)),
        ("smart_format=False", (None, None)),
    ],
)
def test_the_written_form(query: str, written: tuple[bool | None, bool | None]) -> None:
    start = options(query).start
    assert (start.punctuation, start.itn) == written


@pytest.mark.parametrize(
    ("query", "silence_ms", "speech_final"),
    [
        ("", None, True),
        ("endpointing=true", None, True),
        ("endpointing=10", ENDPOINTING_MS_MIN, True),
        ("endpointing=500", 500, True),
        ("endpointing=90000", CLIENT_SILENCE_MS_MAX, True),
        ("endpointing=false", CLIENT_SILENCE_MS_MAX, False),
        ("endpointing=0", CLIENT_SILENCE_MS_MAX, False),
        ("endpointing=false&utterance_end_ms=1000", 1_000, False),
    ],
)
def test_endpointing(query: str, silence_ms: int | None, speech_final: bool) -> None:
    asked = options(query)
    assert (asked.start.endpointing.silence_ms, asked.speech_final) == (silence_ms, speech_final)


@pytest.mark.parametrize(
    ("query", "language"),
    [
        ("language=zh-CN", "zh-CN"),
        ("language=multi", ""),
        ("language=zh&detect_language=true", ""),
        ("language=zh&detect_language=false", "zh"),
        ("detect_language=en&detect_language=zh&language=zh", ""),
    ],
)
def test_the_language_or_that_the_model_finds_it(query: str, language: str) -> None:
    assert options(query).start.language == language


def test_the_form_of_a_file_may_be_declared() -> None:
    start = options("sample_rate=8000&channels=2").start
    assert start.declared == DeclaredAudio(sample_rate_hz=8_000, channels=2)
    assert (start.sample_rate_hz, start.encoded) == (16_000, True)


def test_keywords_without_their_boosts() -> None:
    asked = options("keywords=Paris:2&keywords=a:b&keywords=Rome&keywords=Rome:-1.5&keyterm=Paris")
    assert asked.start.hotwords == ("Paris", "a:b", "Rome")
    assert reported("keywords=Paris:2&keywords=Rome:1") == [("keywords", "ignored")]


def test_fields_without_effect_are_reported() -> None:
    assert reported("multichannel=true&redact=pci&search=a&detect_entities=false&bogus=1") == [
        ("multichannel", "not_offered"),
        ("redact", "not_offered"),
        ("search", "not_offered"),
        ("bogus", "unknown"),
    ]
    for query in ("detect_language=en&detect_language=zh", "language_hint=en"):
        assert reported(query) == [(query.partition("=")[0], "not_offered")]
    assert reported("tag=a&extra=b:c&mip_opt_out=true&version=latest") == []
    assert len(reported("&".join(f"x{n}=1" for n in range(50)))) == NAMES_SHOWN_MAX


@pytest.mark.parametrize("rate", ["-1", "16000.0", "9999999999", "fast"])
def test_a_wrong_number_is_answered_with_its_range(rate: str) -> None:
    with pytest.raises(MessageError, match="sample_rate must be an integer from 8000 to 48000"):
        options(f"encoding=linear16&sample_rate={rate}")


@pytest.mark.parametrize(
    "query",
    [
        "encoding=mp4",
        "encoding=speex",
        "encoding=linear16",
        "encoding=linear16&sample_rate=fast",
        "encoding=linear16&sample_rate=96000",
        "encoding=linear16&sample_rate=16000&channels=0",
        "encoding=linear16&sample_rate=16000&channels=17",
        "sample_rate=-1",
        "interim_results=maybe",
        "punctuate=2",
        "endpointing=soon",
        "endpointing=-1",
        "utterance_end_ms=1.5",
        "utterance_end_ms=" + "9" * 5_000,
        "model=" + "x" * 257,
        "model=%00",
        "language=" + "x" * 33,
        "keyterm=" + "x" * 65,
        "&".join(f"keyterm={n}" for n in range(201)),
        "%00=1",
    ],
)
def test_what_cannot_be_understood_is_refused(query: str) -> None:
    with pytest.raises(MessageError):
        options(query)
