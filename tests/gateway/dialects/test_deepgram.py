"""Deepgram's streaming protocol: the messages of its clients, and the exact answers."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
from msgspec import structs

from gateway.audio.wav import DeclaredAudio
from gateway.dialects.deepgram import Deepgram, DeepgramFile, bare
from gateway.dialects.dialect import TOO_MANY, WAITING_MAX, Ignored, MessageError, Reply
from gateway.session import events as e
from wire.messages import Token

CREATED = datetime(2026, 11, 29, 1, 2, 3, 4_000, UTC)
RAW = "encoding=linear16&sample_rate=16000&"
FINALIZE, CLOSE = '{"type": "Finalize"}', '{"type": "CloseStream"}'


def dialect(query: str = RAW) -> Deepgram:
    return Deepgram(parse_qs(query, keep_blank_values=True), "s", CREATED)


def begun(query: str = "", *, model: str = "demo", **more: Any) -> Deepgram:
    """A dialect in the middle of a session."""
    talk = dialect(RAW + query)
    talk.parse(b"ab")
    started = e.Started(session_id="s", resume_token="", next_chunk_index=0, model=model, **more)
    assert talk.encode(started) == []
    return talk


def sent(talk: Deepgram, answer: e.Answer) -> list[dict[str, Any]]:
    return [json.loads(message) for message in talk.encode(answer)]


def segment(index: int, text: str, *, start_ms: int = 1_000, **more: Any) -> e.SegmentText:
    words = text.split()
    tokens = tuple(
        Token(text=word, start_ms=start_ms + 500 * n, end_ms=start_ms + 500 * n + 400)
        for n, word in enumerate(words)
    )
    return e.SegmentText(
        session_id="s",
        chunk_index=0,
        segment_index=index,
        start_ms=start_ms,
        end_ms=start_ms + 2_000,
        text=text,
        tokens=tokens,
        **more,
    )


def ended(before: int, *, requested: bool = False) -> e.SpeechEnded:
    return e.SpeechEnded(end_ms=3_000, next_segment_index=before, requested=requested)


def shape(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Text and flags of each of ``Results``; the type of other messages."""
    return [
        (
            message["channel"]["alternatives"][0]["transcript"],
            *(name for name in ("is_final", "speech_final", "from_finalize") if message[name]),
        )
        if message["type"] == "Results"
        else (message["type"],)
        for message in messages
    ]


# ------------------------------------------------------------------------------- from the client


def test_a_session_begins_with_its_audio_and_ends_with_close_stream() -> None:
    talk = dialect()
    assert talk.parse('{"type": "KeepAlive"}') == ()
    start, chunk = talk.parse(b"ab")
    assert isinstance(start, e.Start) and start.session_id == "s" and start.speech_events
    assert chunk == e.Chunk(data=b"ab", chunk_index=None, session_id=None)
    assert talk.parse(FINALIZE) == (e.EndUtterance(),)
    assert talk.parse(CLOSE) == (e.Finish(session_id="s"),)
    assert talk.parse(b"ab") == talk.parse(CLOSE) == (Ignored("behind_the_end"),)
    assert not talk.stays_open


@pytest.mark.parametrize("end", [b"", CLOSE, CLOSE.encode()])
def test_an_empty_frame_is_an_end_too_also_without_any_audio(end: str | bytes) -> None:
    start, finish = dialect().parse(end)
    assert isinstance(start, e.Start) and finish == e.Finish(session_id="s")


def test_options_do_not_change_within_a_session() -> None:
    (reply,) = dialect().parse('{"type": "Configure", "keyterms": ["a"]}')
    assert isinstance(reply, Reply)
    assert json.loads(reply.text)["type"] == "ConfigureFailure"


@pytest.mark.parametrize("message", ["KeepAlive", "[]", "{}", '{"type": "Stop"}', '{"type": []}'])
def test_a_wrong_message_is_answered(message: str) -> None:
    talk = dialect()
    with pytest.raises(MessageError) as error:
        talk.parse(message)
    problem = e.Problem(code=error.value.code, message=str(error.value))
    (first,), (second,) = sent(talk, problem), sent(talk, problem)
    assert first == second
    assert (first["type"], first["variant"]) == ("Error", "bad_message")
    assert first["description"] == str(error.value)


def test_raw_audio_is_declared_and_passed_on() -> None:
    start, chunk = dialect("encoding=mulaw&sample_rate=8000&channels=2").parse(b"abc")
    assert isinstance(start, e.Start) and isinstance(chunk, e.Chunk) and chunk.data == b"abc"
    assert start.declared == DeclaredAudio(sample_rate_hz=8_000, channels=2, encoding="mulaw")
    start, *_ = dialect().parse(b"ab")
    assert isinstance(start, e.Start) and start.declared is not None
    assert start.declared.channels is None


def test_containers_are_passed_on() -> None:
    start, chunk = dialect("").parse(b"RIFF")
    assert isinstance(start, e.Start) and start.encoded
    assert isinstance(chunk, e.Chunk) and chunk.data == b"RIFF"


# --------------------------------------------------------------------------------- to the client


def test_results_have_words_with_times() -> None:
    talk = begun()
    talk.encode(ended(1))
    (message,) = sent(talk, segment(0, "Nine, two", confidence=0.5, language="en"))
    metadata = message.pop("metadata")
    assert message == {
        "type": "Results",
        "channel_index": [0, 1],
        "duration": 2.0,
        "start": 1.0,
        "is_final": True,
        "speech_final": True,
        "from_finalize": False,
        "channel": {
            "alternatives": [
                {
                    "transcript": "Nine, two",
                    "confidence": 0.5,
                    "languages": ["en"],
                    "words": [
                        {
                            "word": word,
                            "punctuated_word": punctuated,
                            "start": start,
                            "end": end,
                            "confidence": 0.5,
                        }
                        for word, punctuated, start, end in (
                            ("nine", "Nine,", 1.0, 1.4),
                            ("two", "two", 1.5, 1.9),
                        )
                    ],
                }
            ]
        },
    }
    assert metadata["request_id"] == "s" and metadata["model_info"]["name"] == "demo"
    assert metadata.keys() == {"request_id", "model_info", "model_uuid"}


def test_words_without_times_of_the_model_share_the_time_of_the_segment() -> None:
    answer = structs.replace(segment(0, "one two"), tokens=())
    (message,) = sent(begun(), answer)
    (alternative,) = message["channel"]["alternatives"]
    assert alternative["confidence"] == 1.0
    assert [(word["start"], word["end"]) for word in alternative["words"]] == [(1, 2), (2, 3)]


def test_speakers_count_from_0() -> None:
    (message,) = sent(begun("diarize=true"), segment(0, "one", speaker=2))
    assert message["channel"]["alternatives"][0]["words"][0]["speaker"] == 1


def test_interim_results_are_those_of_the_segment_being_spoken() -> None:
    talk = begun("interim_results=true")
    partial = e.PartialText(segment_index=0, text="one", start_ms=500, end_ms=1_500)
    (message,) = sent(talk, partial)
    assert shape([message]) == [("one",)]
    assert (message["start"], message["duration"]) == (0.5, 1.0)
    assert sent(talk, structs.replace(partial, segment_index=1)) == []


def test_a_segment_is_speech_final_where_speech_has_ended() -> None:
    talk = begun()
    assert shape(sent(talk, segment(0, "one"))) == [("one", "is_final")]
    # The rest of a long utterance had no words.
    assert shape(sent(talk, ended(1))) == [("", "is_final", "speech_final")]
    talk.encode(ended(2))
    assert shape(sent(talk, segment(1, "two"))) == [("two", "is_final", "speech_final")]
    # Recognition is behind: speech has ended again before the first text.
    for count in (3, 4):
        talk.encode(ended(count))
    for index, word in ((2, "three"), (3, "four")):
        assert shape(sent(talk, segment(index, word))) == [(word, "is_final", "speech_final")]
    talk = begun("endpointing=false")
    talk.encode(ended(1))
    assert shape(sent(talk, segment(0, "one"))) == [("one", "is_final")]


def test_finalize_is_answered_by_the_results_of_what_it_ended() -> None:
    talk = begun()
    assert sent(talk, ended(2, requested=True)) == []
    assert shape(sent(talk, segment(0, "one"))) == [("one", "is_final")]
    assert shape(sent(talk, segment(1, "two"))) == [
        ("two", "is_final", "speech_final", "from_finalize")
    ]


def test_finalize_without_open_speech_is_answered_at_once() -> None:
    talk = begun()
    talk.encode(ended(1))
    talk.encode(segment(0, "one"))
    empty = [("", "is_final", "speech_final", "from_finalize")]
    assert shape(sent(talk, ended(1, requested=True))) == empty
    # Two of them wait for a text: each has its answer.
    talk.encode(ended(2, requested=True))
    talk.encode(ended(2, requested=True))
    found = shape(sent(talk, segment(1, "two")))
    assert found == [("two", "is_final", "speech_final", "from_finalize"), *empty]


def test_a_flood_of_finalize_is_bounded() -> None:
    talk = begun()
    for _ in range(WAITING_MAX):
        assert e.EndUtterance() in talk.parse(FINALIZE)
        talk.encode(ended(1, requested=True))
    assert talk.parse(FINALIZE) == (TOO_MANY,)
    assert len(sent(talk, segment(0, "one"))) == WAITING_MAX
    assert e.EndUtterance() in talk.parse(FINALIZE)


def test_finalize_is_answered_although_the_segment_failed() -> None:
    talk = begun()
    talk.encode(ended(1, requested=True))
    problem = e.Problem(code="chunk_failed", message="why", segment_index=0)
    assert shape(sent(talk, problem)) == [
        *(("Error",), ("", "is_final", "speech_final", "from_finalize")),
    ]


def test_speech_started_if_asked_for() -> None:
    started = e.SpeechStarted(start_ms=1_540)
    assert sent(begun(), started) == []
    assert sent(begun("vad_events=true"), started) == [
        {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 1.54}
    ]


def test_utterance_end_follows_the_text_of_the_utterance() -> None:
    talk = begun("utterance_end_ms=1000")
    talk.encode(ended(1))
    assert sent(talk, e.LongSilence(next_segment_index=1)) == []
    _, end = sent(talk, segment(0, "one two"))
    assert end == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.9}
    (again,) = sent(talk, e.LongSilence(next_segment_index=1))
    assert again == end


def test_a_damaged_file_is_one_error() -> None:
    talk = begun()
    problem = e.Problem(code="bad_audio", message="why", chunk_index=0)
    (error,) = sent(talk, problem)
    assert (error["type"], error["variant"], error["description"]) == ("Error", "bad_audio", "why")
    assert sent(talk, structs.replace(problem, chunk_index=1)) == []


def test_the_end_is_metadata() -> None:
    talk = begun()
    end = e.Finished(session_id="s", text="one", duration_ms=2_500, chunk_count=1, stored=False)
    (metadata,) = sent(talk, end)
    (model,) = metadata.pop("models")
    assert metadata == {
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": "s",
        "sha256": hashlib.sha256(b"ab").hexdigest(),
        "created": "2026-11-29T01:02:03.004Z",
        "duration": 2.5,
        "channels": 1,
        "model_info": {model: {"name": "demo", "version": "", "arch": "demo"}},
    }


def test_options_without_effect_are_in_the_first_results_and_the_last_message() -> None:
    warning = e.SessionWarning(code="hotwords_ignored", message="m")
    talk = begun("model=nova-3&redact=pci&keyterm=a", warnings=(warning,))
    (first,), (second,) = sent(talk, segment(0, "one")), sent(talk, segment(1, "two"))
    reported = first["metadata"]["warnings"]
    assert [(each["parameter"], each["type"]) for each in reported] == [
        *(("redact", "not_offered"), ("model", "unknown"), ("", "hotwords_ignored")),
    ]
    assert "warnings" not in second["metadata"]
    about_audio = e.SessionWarning(code="loudest_only", message="n")
    end = e.Finished(
        session_id="s",
        text="",
        duration_ms=1,
        chunk_count=1,
        stored=False,
        warnings=(about_audio,),
    )
    (*before, last) = sent(talk, end)[0]["warnings"]
    assert before == reported
    assert last == {"parameter": "", "type": "loudest_only", "message": "n"}


def test_a_model_that_is_served_is_no_warning() -> None:
    (message,) = sent(begun("model=zh", model="zh"), segment(0, "one"))
    assert "warnings" not in message["metadata"]


@pytest.mark.parametrize(
    ("word", "plain"),
    [("Nine,", "nine"), ("it's.", "it's"), ("二", "二"), ("—", "—"), ("(A)", "a")],
)
def test_a_word_without_punctuation(word: str, plain: str) -> None:
    assert bare(word) == plain


def test_a_file_is_answered_with_the_words_of_all_utterances() -> None:
    talk = DeepgramFile(
        {"interim_results": ["true"], "utterances": ["true"]}, "s", datetime.now(UTC)
    )
    start, _chunk = talk.parse(b"RIFF")
    assert isinstance(start, e.Start) and start.encoded and not start.partials
    assert isinstance(talk.parse(b"")[-1], e.Finish)
    segments = [segment(0, "nine two", confidence=0.5), segment(1, "five", start_ms=4_000)]
    text = "nine two five"
    end = e.Finished(session_id="s", text=text, duration_ms=7_000, chunk_count=2, stored=True)
    body = talk.body(segments, end)
    assert body["metadata"]["duration"] == 7.0 and body["metadata"]["warnings"]
    (channel,) = body["results"]["channels"]
    (alternative,) = channel["alternatives"]
    assert alternative["transcript"] == text
    assert [word["word"] for word in alternative["words"]] == ["nine", "two", "five"]
    assert alternative["words"][2]["start"] == 4.0
