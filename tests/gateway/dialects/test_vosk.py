"""Vosk's protocol: exactly one reply to each message."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from msgspec import structs

from gateway.audio.wav import DeclaredAudio
from gateway.dialects.dialect import MessageError
from gateway.dialects.vosk import Vosk
from gateway.session import events as e
from wire.messages import Token


def dialect() -> Vosk:
    numbers = itertools.count()
    return Vosk(lambda: f"session{next(numbers)}")


def encoded(talk: Vosk, answer: e.Answer) -> dict[str, Any]:
    (message,) = talk.encode(answer)
    reply: dict[str, Any] = json.loads(message)
    return reply


def segment(index: int, text: str) -> e.SegmentText:
    return e.SegmentText(
        session_id="session0",
        chunk_index=0,
        segment_index=index,
        start_ms=0,
        end_ms=2_000,
        text=text,
        tokens=(Token(text=text, start_ms=1_000, end_ms=1_500),),
    )


RECEIVED = e.ChunkReceived(chunk_index=0)
FINISHED = e.Finished(session_id="session0", text="", duration_ms=1, chunk_count=1, stored=False)


def test_a_session_begins_with_its_audio() -> None:
    talk = dialect()
    config = {"sample_rate": 16_000.0, "phrase_list": ["zero one", "[unk]"], "words": 0}
    assert talk.parse(json.dumps({"config": config})) == ()
    start, chunk = talk.parse(b"ab")
    assert isinstance(start, e.Start)
    assert (start.session_id, start.sample_rate_hz) == ("session0", 16_000)
    assert start.declared == DeclaredAudio(sample_rate_hz=16_000)
    assert start.hotwords == ("zero one",) and start.partials
    assert (start.punctuation, start.itn) == (None, None)
    # With an index, so that each is acknowledged.
    assert chunk == e.Chunk(data=b"ab", chunk_index=0, session_id="session0")
    (chunk,) = talk.parse(b"cd")
    assert chunk == e.Chunk(data=b"cd", chunk_index=1, session_id="session0")


def test_a_configuration_after_the_first_audio_is_warned_of() -> None:
    talk = dialect()
    talk.parse('{"config": {"sample_rate": 16000}}')
    talk.parse(b"ab")
    talk.parse('{"config": {"sample_rate": 16000, "words": true}}')
    assert "warnings" not in json.loads(*talk.encode(RECEIVED))
    talk.parse('{"config": {"sample_rate": 8000}}')
    (warning,) = json.loads(*talk.encode(RECEIVED))["warnings"]
    assert warning["code"] == "setting_late"
    talk.parse('{"reset": 1}')
    start, _ = talk.parse(b"ab")
    assert isinstance(start, e.Start) and start.sample_rate_hz == 8_000


def test_a_configuration_may_be_together_with_an_end() -> None:
    talk = dialect()
    start, finish = talk.parse('{"config": {"sample_rate": 16000}, "eof": 1}')
    assert isinstance(start, e.Start) and start.sample_rate_hz == 16_000
    assert finish == e.Finish(session_id="session0") and not talk.stays_open


def test_names_without_effect_are_warned_of_wherever_they_are() -> None:
    talk = dialect()
    talk.parse('{"config": {"partial_words": true}}')
    talk.parse('{"words": 0, "config": {"words": 1}}')
    start, _ = talk.parse(b"ab")
    assert isinstance(start, e.Start) and start.ignored_fields == ("partial_words", "words")


def test_several_alternatives_are_warned_of() -> None:
    talk = dialect()
    talk.parse('{"config": {"max_alternatives": 3}}')
    talk.parse(b"ab")
    talk.encode(e.Started(session_id="session0", resume_token="", next_chunk_index=0))
    (warning,) = json.loads(*talk.encode(RECEIVED))["warnings"]
    assert warning["code"] == "value_limited"


def test_the_written_form_is_configured() -> None:
    talk = dialect()
    talk.parse('{"config": {"punctuation": false, "itn": 1}}')
    start, _ = talk.parse(b"ab")
    assert isinstance(start, e.Start)
    assert (start.punctuation, start.itn) == (False, True)


def test_each_reply_has_the_newest_text() -> None:
    talk = dialect()
    talk.parse(b"ab")
    assert encoded(talk, RECEIVED) == {"partial": ""}
    assert talk.encode(e.PartialText(segment_index=0, text="on")) == ()
    assert encoded(talk, RECEIVED) == {"partial": "on"}
    assert talk.encode(segment(0, "one")) == ()
    assert talk.encode(e.PartialText(segment_index=0, text="late")) == ()
    assert talk.encode(segment(1, "two")) == ()
    word = {"conf": 1.0, "end": 1.5, "start": 1.0, "word": "one"}
    assert encoded(talk, RECEIVED) == {"result": [word], "text": "one"}
    talk.encode(segment(2, "three"))
    last = encoded(talk, FINISHED)
    assert last["text"] == "two three"
    assert [word["word"] for word in last["result"]] == ["two", "three"]


def test_words_and_alternatives_as_configured() -> None:
    talk = dialect()
    talk.parse('{"config":{"words":false,"max_alternatives":1}}')
    talk.parse(b"ab")
    talk.encode(segment(0, "one"))
    assert encoded(talk, RECEIVED) == {"alternatives": [{"confidence": 1.0, "text": "one"}]}
    talk.parse('{"config":{"words":true}}')
    talk.encode(segment(1, "two"))
    (alternative,) = encoded(talk, RECEIVED)["alternatives"]
    assert alternative["result"] == [{"end": 1.5, "start": 1.0, "word": "two"}]


def test_the_confidence_is_that_of_the_model() -> None:
    talk = dialect()
    talk.parse(b"ab")
    talk.encode(structs.replace(segment(0, "one"), confidence=0.25))
    (word,) = encoded(talk, RECEIVED)["result"]
    assert word["conf"] == 0.25
    talk.parse('{"config":{"max_alternatives":1}}')
    talk.encode(structs.replace(segment(1, "two"), confidence=0.5))
    (alternative,) = encoded(talk, RECEIVED)["alternatives"]
    assert alternative["confidence"] == 0.5


def test_the_model_is_part_of_the_configuration_and_warnings_of_the_next_reply() -> None:
    talk = dialect()
    talk.parse('{"config":{"model":"zh","phrase_list":["one"],"phrases":[]}}')
    (start, _) = talk.parse(b"ab")
    assert isinstance(start, e.Start)
    assert (start.model, start.ignored_fields) == ("zh", ("phrases",))
    warning = e.SessionWarning(code="field_ignored", message="phrases")
    started = e.Started(
        session_id="session0", resume_token="", next_chunk_index=0, warnings=(warning,)
    )
    assert talk.encode(started) == ()
    reported = encoded(talk, RECEIVED)["warnings"]
    assert [each["code"] for each in reported] == ["field_ignored", "grammar_open"]
    assert encoded(talk, RECEIVED) == {"partial": ""}


@pytest.mark.parametrize("alternatives", ['"1"', "true"])
def test_numbers_in_other_types_as_vosk_server_takes_them(alternatives: str) -> None:
    talk = dialect()
    config = f'{{"sample_rate":"16000","max_alternatives":{alternatives}}}'
    talk.parse(f'{{"config":{config}}}')
    (start, _) = talk.parse(b"ab")
    assert isinstance(start, e.Start) and start.sample_rate_hz == 16_000
    talk.encode(segment(0, "one"))
    assert "alternatives" in encoded(talk, RECEIVED)


def test_null_and_texts_in_the_configuration() -> None:
    talk = dialect()
    names = ("sample_rate", "model", "phrase_list", "max_alternatives", "punctuation", "itn")
    talk.parse(json.dumps({"config": {**dict.fromkeys(names), "words": "false"}}))
    (start, _) = talk.parse(b"ab")
    assert isinstance(start, e.Start)
    assert (start.sample_rate_hz, start.model, start.hotwords) == (8_000, "", ())
    assert start.declared is None
    assert (start.punctuation, start.itn, start.ignored_fields) == (None, None, ())
    talk.encode(segment(0, "one"))
    assert encoded(talk, RECEIVED).keys() == {"text"}


def test_the_connection_stays_open_after_reset_and_not_after_eof() -> None:
    talk = dialect()
    talk.parse(b"ab")
    assert talk.parse('{"reset" : 1}') == (e.Finish(session_id="session0"),)
    assert encoded(talk, FINISHED) == {"text": ""} and talk.stays_open
    start, finish = talk.parse('{"eof":1}')
    assert isinstance(start, e.Start) and finish == e.Finish(session_id="session1")
    assert not talk.stays_open


def test_an_error_is_an_extra_field_of_the_next_reply() -> None:
    talk = dialect()
    talk.parse(b"ab")
    assert talk.encode(e.Problem(code="deadline", message="late", segment_index=0)) == ()
    assert encoded(talk, RECEIVED) == {"partial": "", "error": "deadline: late"}
    assert encoded(talk, RECEIVED) == {"partial": ""}


@pytest.mark.parametrize(
    "message",
    [
        "eof",
        "[]",
        "{}",
        '{"config":7}',
        '{"config":{"model":7}}',
        '{"config":{"model":"%s"}}' % ("x" * 257),
        '{"config":{"sample_rate":"8k"}}',
        '{"config":{"sample_rate":"nan"}}',
        '{"config":{"sample_rate":1%s}}' % ("0" * 400),
        '{"config":{"sample_rate":true}}',
        '{"config":{"sample_rate":1e300}}',
        '{"config":{"max_alternatives":-1}}',
        '{"config":{"max_alternatives":[]}}',
        '{"config":{},"\\u0000":1}',
        '{"config":{"phrase_list":"one"}}',
        '{"config":{"phrase_list":[1]}}',
    ],
)
def test_a_wrong_message_is_fatal(message: str) -> None:
    with pytest.raises(MessageError) as error:
        dialect().parse(message)
    assert error.value.fatal


@pytest.mark.parametrize("message", [b'{"eof":1}', b'{"eof" : 1}\n', '{"eof": true}'])
def test_an_end_in_every_form(message: str | bytes) -> None:
    talk = dialect()
    talk.parse(b"ab")
    assert talk.parse(message) == (e.Finish(session_id="session0"),)
    assert not talk.stays_open


def test_the_last_reply_warns_of_audio_that_is_not_used() -> None:
    talk = dialect()
    talk.parse(b"audio")
    warning = e.SessionWarning(code="loudest_only", message="n")
    (reply,) = talk.encode(structs.replace(FINISHED, warnings=(warning,)))
    assert json.loads(reply)["warnings"] == [{"code": "loudest_only", "message": "n"}]
