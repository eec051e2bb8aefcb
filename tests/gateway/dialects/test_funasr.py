"""FunASR's runtime protocol: the messages of each client, and the exact replies."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from msgspec import structs, to_builtins

from gateway.audio.wav import DeclaredAudio
from gateway.dialects.dialect import Ignored, MessageError, Reply
from gateway.dialects.funasr import Funasr
from gateway.session import events as e
from wire.messages import Token


def dialect() -> Funasr:
    numbers = itertools.count()
    return Funasr(lambda: f"session{next(numbers)}")


def start(talk: Funasr, **fields: Any) -> e.Start:
    """Send a start and the first audio."""
    assert talk.parse(json.dumps({"is_speaking": True, **fields})) == ()
    event, _chunk = talk.parse(b"")
    assert isinstance(event, e.Start)
    return event


def encode_all(talk: Funasr, answer: e.Answer) -> list[dict[str, Any]]:
    return [json.loads(message) for message in talk.encode(answer)]


def segment(index: int, text: str, *tokens: Token) -> e.SegmentText:
    return e.SegmentText(
        session_id="session0",
        chunk_index=0,
        segment_index=index,
        start_ms=0,
        end_ms=9,
        text=text,
        tokens=tokens,
    )


def finished(text: str) -> e.Finished:
    return e.Finished(session_id="session0", text=text, duration_ms=9, chunk_count=1, stored=False)


def tokens(*words: str) -> tuple[Token, ...]:
    return tuple(
        Token(text=word, start_ms=100 * n, end_ms=100 * n + 80) for n, word in enumerate(words)
    )


END = '{"is_speaking": false, "is_end": true}'
OLD_END = '{"is_speaking": false}'


def test_a_start_of_the_python_client() -> None:
    event = start(
        dialect(),
        mode="2pass",
        chunk_size=[5, 10, 5],
        audio_fs=8_000,
        wav_name="a",
        wav_format="others",
        hotwords="阿里 巴巴",
        itn=True,
    )
    assert event.session_id == "session0"
    assert (event.sample_rate_hz, event.partials, event.encoded) == (8_000, True, True)
    assert event.hotwords == ("阿里", "巴巴")
    assert event.declared is None, "the rate is its default, whatever the file has"


def test_the_rate_of_pcm_is_declared() -> None:
    assert start(dialect(), audio_fs=8_000).declared == DeclaredAudio(sample_rate_hz=8_000)
    event = start(dialect(), wav_format="pcm")
    assert (event.declared, event.sample_rate_hz) == (DeclaredAudio(), 16_000)


@pytest.mark.parametrize(
    ("hotwords", "words"),
    [
        ("", ()),
        ('{"阿里巴巴": 20, "hello world": "40"}', ("阿里巴巴", "hello world")),
        ({"one": 1}, ("one",)),
        (["one", "two"], ("one", "two")),
        ('["one", "hello world"]', ("one", "hello world")),
        ("hello world,two", ("hello world", "two")),
        ("hello world\ntwo\n", ("hello world", "two")),
        ("one  two", ("one", "two")),
        ([2024, "one"], ("2024", "one")),
        ("[音乐] 你好", ("[音乐]", "你好")),
    ],
)
def test_hotwords_in_every_form(hotwords: Any, words: tuple[str, ...]) -> None:
    assert start(dialect(), hotwords=hotwords).hotwords == words


@pytest.mark.parametrize(
    ("fields", "itn"),
    [
        ({}, None),
        ({"itn": True}, True),
        ({"itn": False, "svs_itn": True}, False),
        ({"svs_itn": True}, True),
        ({"itn": True, "mode": "2pass"}, True),
        ({"itn": True, "mode": "online"}, None),
    ],
)
def test_numbers_in_digits_where_a_text_can_be_corrected(
    fields: dict[str, Any], itn: bool | None
) -> None:
    assert start(dialect(), **fields).itn is itn


@pytest.mark.parametrize(("told_language", "language"), [("auto", ""), ("zh", "zh"), (None, "")])
def test_the_language_of_a_model_that_takes_one(told_language: Any, language: str) -> None:
    assert start(dialect(), svs_lang=told_language).language == language


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "fast"},
        {"itn": "yes"},
        {"mode": ["2pass"]},
        {"audio_fs": "many"},
        {"audio_fs": "9" * 5_000},
        {"hotwords": " " * 700_000},
        {"audio_fs": 96_000},
        {"audio_fs": True},
        {"hotwords": 7},
        {"hotwords": "{not json"},
        {"hotwords": "[not json]"},
        {"hotwords": '["one"], "mode": ["offline"]'},
        {"hotwords": [["one", 20]]},
        {"hotwords": ["w" * 65]},
        {"hotwords": [str(n) for n in range(201)]},
        {"wav_name": "a\0b"},
        {"svs_lang": 7},
        {"svs_lang": "z" * 33},
    ],
)
def test_a_wrong_start_is_answered(fields: dict[str, Any]) -> None:
    talk = dialect()
    with pytest.raises(MessageError):
        start(talk, **fields)
    (reply,) = encode_all(talk, e.Problem(code="bad_message", message="why"))
    assert reply["error"] == "bad_message: why"
    assert (reply["text"], reply["is_final"], reply["mode"]) == ("", False, "offline")


def test_messages_before_the_audio_change_the_settings() -> None:
    """As in FunASR's server. The rate of the second one was ignored: the text was wrong."""
    talk = dialect()
    for fields in (
        {"mode": "2pass", "wav_format": "others", "hotwords": "one"},
        {"is_speaking": True},
        {"audio_fs": 8_000},
    ):
        assert talk.parse(json.dumps(fields)) == ()
    began, chunk = talk.parse(b"\0\0")
    assert isinstance(began, e.Start) and isinstance(chunk, e.Chunk)
    assert (began.session_id, began.sample_rate_hz, began.encoded) == ("session0", 8_000, True)
    assert (began.partials, began.hotwords) == (True, ("one",))


def test_a_recording_without_audio_is_answered() -> None:
    talk = dialect()
    assert talk.parse('{"mode": "2pass", "is_speaking": true}') == ()
    began, end = talk.parse(END)
    assert isinstance(began, e.Start) and isinstance(end, e.Finish)
    assert (began.partials, began.session_id) == (True, end.session_id)


@pytest.mark.parametrize("value", [True, 1, "true", "True", "1"])
def test_flags_in_every_form(value: Any) -> None:
    event = start(dialect(), itn=value, speakers=value)
    assert (event.itn, event.speakers) == (True, True)


def test_a_refusal_of_hotwords_names_them() -> None:
    with pytest.raises(MessageError, match=r"^hotwords: not valid JSON$"):
        dialect().parse('{"hotwords": "{one"}')


def test_a_start_inside_of_a_recording_is_warned_of() -> None:
    for late, warned in (({"mode": "offline"}, False), ({"hotwords": "one"}, True)):
        talk = dialect()
        start(talk, mode="offline")
        for _ in range(2):
            assert talk.parse(json.dumps(late)) == (Ignored("inside_a_recording"),)
        talk.parse(OLD_END)
        (reply,) = encode_all(talk, finished("one"))
        codes = [warning["code"] for warning in reply.get("warnings", ())]
        assert codes == (["setting_late"] if warned else [])


@pytest.mark.parametrize(
    ("options", "codes"),
    [({"mode": "offline", "chunk_interval": 10}, []), ({"hotwords": "one"}, ["setting_late"])],
)
def test_options_of_an_end_are_warned_of(options: dict[str, Any], codes: list[str]) -> None:
    talk = dialect()
    start(talk, mode="offline", wav_name="a")
    talk.parse(json.dumps({"is_speaking": False, **options}))
    (reply,) = encode_all(talk, finished("one"))
    assert [warning["code"] for warning in reply.get("warnings", ())] == codes


def test_unusual_starts() -> None:
    talk = dialect()
    assert start(talk, mode="office").partials is False
    assert talk.parse(json.dumps({"is_speaking": True, "mode": "2pass"})) == (
        Ignored("inside_a_recording"),
    )
    began, chunk = dialect().parse(b"\0\0")
    assert isinstance(began, e.Start) and isinstance(chunk, e.Chunk)
    began, end = dialect().parse(END)
    assert isinstance(began, e.Start) and isinstance(end, e.Finish)


def test_offline_is_one_reply_and_an_acknowledged_end_if_requested() -> None:
    for ending, count in ((END, 2), (OLD_END, 1)):
        talk = dialect()
        start(talk, mode="offline", wav_name="a")
        assert encode_all(talk, e.PartialText(segment_index=0, text="no")) == []
        assert encode_all(talk, segment(0, "一二", *tokens("一", "二"))) == []
        (event,) = talk.parse(ending)
        assert event == e.Finish(session_id="session0")
        late = Ignored("behind_the_end")
        assert (*talk.parse(b"late"), *talk.parse(ending)) == (late, late)
        replies = encode_all(talk, finished("一二"))
        assert len(replies) == count
        text = replies[0]
        assert (text["mode"], text["text"], text["wav_name"]) == ("offline", "一二", "a")
        assert text["timestamp"] == "[[0,80],[100,180]]"
        assert text["stamp_sents"] == [
            {
                "text_seg": "一 二",
                "punc": "",
                "start": 0,
                "end": 180,
                "ts_list": [[0, 80], [100, 180]],
            }
        ]
        assert text["is_final"] is (count == 1)
        if count == 2:
            assert replies[1] == {
                "mode": "offline",
                "text": "",
                "wav_name": "a",
                "is_final": True,
                "is_end": True,
            }


def test_2pass_sentences_replace_the_increments() -> None:
    talk = dialect()
    start(talk, mode="2pass")
    partial = encode_all(talk, e.PartialText(segment_index=0, text="nine"))
    assert [(r["mode"], r["text"]) for r in partial] == [("2pass-online", "nine")]
    # Of the next segment, whose turn is not yet.
    assert encode_all(talk, e.PartialText(segment_index=1, text="two")) == []
    (first,) = encode_all(talk, segment(0, "five"))
    (second,) = encode_all(talk, segment(1, "two"))
    assert [first["text"], second["text"]] == ["five", " two"]
    assert first["mode"] == "2pass-offline" and "timestamp" not in first
    talk.parse(OLD_END)
    (last,) = encode_all(talk, finished("five two"))
    assert (last["mode"], last["text"], last["is_final"]) == ("2pass-offline", "", True)
    assert "is_end" not in last


@pytest.mark.parametrize(("mode", "kind"), [("online", "online"), ("2pass", "2pass-offline")])
def test_the_last_reply_has_the_last_text(mode: str, kind: str) -> None:
    """FunASR's Python API returns only the last message."""
    talk = dialect()
    start(talk, mode=mode)
    assert [r["text"] for r in encode_all(talk, segment(0, "one"))] == ["one"]
    talk.parse(OLD_END)
    assert encode_all(talk, segment(1, "two")) == []
    before = encode_all(talk, e.PartialText(segment_index=2, text="three four"))
    before += encode_all(talk, e.PartialText(segment_index=2, text="three four"))
    shown = {"online": " three", "2pass": " three four"}
    assert [r["text"] for r in before] == [" two", shown[mode]]
    ends = {"online": " four", "2pass": " three four"}
    assert encode_all(talk, segment(2, "three four")) == []
    (last,) = encode_all(talk, finished("one two three four"))
    assert (last["mode"], last["text"], last["is_final"]) == (kind, ends[mode], True)


def test_a_text_is_not_held_back_if_the_client_expects_is_end() -> None:
    talk = dialect()
    start(talk, mode="2pass")
    talk.parse(END)
    assert [r["text"] for r in encode_all(talk, segment(0, "one"))] == ["one"]
    (last,) = encode_all(talk, finished("one"))
    assert (last["text"], last["is_end"], last["is_final"]) == ("", True, True)


def test_a_reply_held_back_precedes_an_error() -> None:
    talk = dialect()
    start(talk, mode="2pass")
    talk.parse(OLD_END)
    assert encode_all(talk, segment(0, "one")) == []
    problem = e.Problem(code="chunk_failed", message="why", segment_index=1)
    assert [r["text"] for r in encode_all(talk, problem)] == ["one", ""]
    (last,) = encode_all(talk, finished("one"))
    assert last["is_final"] is True and last["error"] == "chunk_failed: why"


def test_an_error_is_in_the_end_that_the_client_waits_for() -> None:
    talk = dialect()
    start(talk, mode="online")
    problem = e.Problem(code="chunk_failed", message="why", segment_index=0)
    (reply,) = encode_all(talk, problem)
    assert reply["error"] == "chunk_failed: why" and reply["is_final"] is False
    assert encode_all(talk, problem) == []
    assert [r["text"] for r in encode_all(talk, segment(1, "two"))] == ["two"]
    talk.parse(END)
    (end,) = encode_all(talk, finished("two"))
    assert (end["is_end"], end["is_final"]) == (True, False)
    assert end["error"] == "chunk_failed: why"


def test_clients_that_count_replies_get_an_error_with_the_last() -> None:
    talk = dialect()
    start(talk, mode="offline")
    assert encode_all(talk, e.Problem(code="bad_audio", message="why")) == []
    talk.parse(OLD_END)
    (reply,) = encode_all(talk, finished(""))
    assert reply["is_final"] is True and reply["error"] == "bad_audio: why"


def test_the_next_recording_keeps_omitted_settings() -> None:
    talk = dialect()
    start(talk, hotwords="one", audio_fs=8_000, mode="2pass", wav_format="others")
    talk.parse(OLD_END)
    encode_all(talk, finished(""))
    event = start(talk, wav_name="b")
    assert event.session_id == "session1"
    assert (event.hotwords, event.sample_rate_hz, event.partials) == (("one",), 8_000, True)
    assert event.encoded is False


def test_a_recording_that_starts_before_the_last_reply_of_its_predecessor() -> None:
    """Answers concern the first recording, messages the second."""
    talk = dialect()
    assert start(talk, wav_name="a").session_id == "session0"
    talk.parse(OLD_END)
    assert start(talk, wav_name="b").session_id == "session1"
    (chunk,) = talk.parse(b"pcm of b")
    assert isinstance(chunk, e.Chunk)
    (reply,) = encode_all(talk, finished(""))
    assert reply["wav_name"] == "a"
    assert talk.parse(OLD_END) == (e.Finish(session_id="session1"),)
    (reply,) = encode_all(talk, finished(""))
    assert reply["wav_name"] == "b"
    assert encode_all(talk, segment(0, "nobody's")) == []


@pytest.mark.parametrize(
    ("text", "words", "placed"),
    [
        ("一二three four", ("一", "二", "three", "four"), False),
        ("一二three", ("一", "二", "three"), True),
        ("one two", ("one", "two"), True),
        ("一二，三。", ("一", "二", "三"), True),
    ],
)
def test_times_that_the_html5_client_fails_on_are_left_out(
    text: str, words: tuple[str, ...], placed: bool
) -> None:
    talk = dialect()
    start(talk, mode="2pass")
    (reply,) = encode_all(talk, segment(0, text, *tokens(*words)))
    assert ("timestamp" in reply) is placed


def test_what_the_model_recognised_besides_words_is_in_the_reply() -> None:
    known = {"language": "zh", "confidence": 0.5, "emotion": "happy", "events": ["music"]}
    reported = structs.replace(segment(0, "一"), **{**known, "events": ("music",)})
    for mode in ("offline", "2pass", "online"):
        talk = dialect()
        start(talk, mode=mode)
        talk.parse(b"ab")
        replies = encode_all(talk, reported)
        talk.parse(END)
        replies += encode_all(talk, finished("一"))
        (reply,) = [reply for reply in replies if reply["text"]]
        assert reply | known == reply


def test_fields_without_effect_are_named() -> None:
    look_backs = {"encoder_chunk_look_back": 4, "decoder_chunk_look_back": 0}
    usual = {"mode": "2pass", "chunk_size": [5, 10, 5], "chunk_interval": 10, **look_backs}
    assert start(dialect(), **usual, model=None).ignored_fields == ()
    event = start(dialect(), **usual, language="en", itnn=True)
    assert event.ignored_fields == ("language", "itnn")


def test_warnings_are_in_the_next_reply_once() -> None:
    talk = dialect()
    start(talk, mode="2pass")
    warning = e.SessionWarning(code="hotwords_ignored", message="m")
    started = e.Started(
        session_id="session0", resume_token="", next_chunk_index=0, warnings=(warning,)
    )
    assert encode_all(talk, started) == []
    (first,) = encode_all(talk, segment(0, "one"))
    assert first["warnings"] == [{"code": "hotwords_ignored", "message": "m"}]
    (second,) = encode_all(talk, segment(1, "two"))
    assert "warnings" not in second
    talk.parse(END)
    about_audio = e.SessionWarning(code="loudest_only", message="n")
    replies = encode_all(talk, structs.replace(finished("one two"), warnings=(about_audio,)))
    assert [reply.get("warnings") for reply in replies][:1] == [[to_builtins(about_audio)]]


# ---------------------------------------------------------------------------------------- speakers


def said_by(speaker: int | None, index: int, *words: str) -> e.SegmentText:
    return structs.replace(segment(index, " ".join(words), *tokens(*words)), speaker=speaker)


def test_a_start_can_ask_for_speakers() -> None:
    assert start(dialect(), speakers=True).speakers
    assert not start(dialect()).speakers
    with pytest.raises(MessageError):
        start(dialect(), speakers="yes")


@pytest.mark.parametrize("mode", ["online", "2pass"])
def test_a_sentence_has_its_speaker(mode: str) -> None:
    talk = dialect()
    start(talk, mode=mode, speakers=True)
    (reply,) = encode_all(talk, said_by(2, 0, "one", "two"))
    assert (reply["spk_name"], reply["spk"]) == ("Speaker 2", 1)
    (reply,) = encode_all(talk, said_by(None, 1, "one"))
    assert "spk" not in reply and "spk_name" not in reply


def test_a_recording_has_its_sentences_with_corrected_speakers() -> None:
    talk = dialect()
    start(talk, mode="offline", speakers=True)
    talk.parse(OLD_END)
    for answer in (said_by(1, 0, "one"), said_by(2, 1, "two"), said_by(None, 2, "three")):
        assert encode_all(talk, answer) == []
    end = structs.replace(finished("one two three"), speakers=(1, 1, None))
    (reply,) = encode_all(talk, end)
    assert [sentence.get("spk") for sentence in reply["sentence_info"]] == [0, 0, None]
    assert [sentence.get("spk") for sentence in reply["stamp_sents"]] == [0, 0, None]
    assert reply["sentence_info"][0] == {"text": "one", "start": 0, "end": 9, "spk": 0}


# ------------------------------------------------------------------- what the original also accepts


def test_each_utterance_of_mode_online_ends_with_is_final() -> None:
    talk = dialect()
    start(talk, mode="online")
    partial = e.PartialText(segment_index=0, text="one two")
    assert encode_all(talk, partial) == []
    assert [r["text"] for r in encode_all(talk, partial)] == ["one"]
    assert encode_all(talk, partial) == []  # The last word is for the final reply.
    (reply,) = encode_all(talk, segment(0, "one two"))
    assert (reply["text"], reply["is_final"]) == (" two", True)
    assert encode_all(talk, segment(1, "")) == []
    # All of its words were sent: clients wait for the end all the same.
    for text in ("three", "three four", "three four"):
        encode_all(talk, e.PartialText(segment_index=2, text=text))
    (reply,) = encode_all(talk, segment(2, "three"))
    assert (reply["text"], reply["is_final"]) == ("", True)


def test_a_cpp_client_would_close_at_the_first_is_final() -> None:
    talk = dialect()
    start(talk, mode="online", svs_itn=False)
    (reply,) = encode_all(talk, segment(0, "one"))
    assert (reply["text"], reply["is_final"]) == ("one", False)


@pytest.mark.parametrize(
    ("rate", "rate_hz"),
    [(44_100.0, 44_100), ("16000", 16_000), (" 8000.0 ", 8_000), (11_025, 11_025)],
)
def test_any_number_is_a_sample_rate(rate: Any, rate_hz: int) -> None:
    assert start(dialect(), audio_fs=rate).sample_rate_hz == rate_hz


@pytest.mark.parametrize(
    "end",
    [
        '{"is_speaking": 0}',
        '{"is_speaking": "false"}',
        '{"is_speaking": "False", "is_end": "true"}',
        '{"is_end": 1}',
        b'{"is_speaking": false, "is_end": true}',
    ],
)
def test_an_end_in_every_form(end: str | bytes) -> None:
    talk = dialect()
    start(talk)
    assert talk.parse(end) == (e.Finish(session_id="session0"),)


@pytest.mark.parametrize("speaking", [None, "", [], {}])
def test_an_empty_value_ends_a_recording_and_not_a_start(speaking: Any) -> None:
    talk = dialect()
    assert talk.parse(json.dumps({"is_speaking": speaking, "mode": "offline"})) == ()
    talk.parse(b"ab")
    end = json.dumps({"is_speaking": speaking})
    assert talk.parse(end) == (e.Finish(session_id="session0"),)


def test_an_empty_option_of_a_start_keeps_its_value() -> None:
    talk = dialect()
    start(talk, mode="2pass", audio_fs=8_000, itn=True, speakers=True)
    talk.parse(OLD_END)
    names = ("mode", "audio_fs", "itn", "svs_itn", "speakers")
    second = start(talk, **dict.fromkeys(names, ""))
    assert (second.partials, second.sample_rate_hz) == (True, 8_000)
    assert (second.itn, second.speakers) == (True, True)


def test_after_a_refused_start_no_audio_is_taken_and_the_end_is_answered() -> None:
    for ending, last in ((END, {"is_end": True}), (OLD_END, {"is_final": True})):
        talk = dialect()
        with pytest.raises(MessageError):
            start(talk, audio_fs="fast")
        assert talk.parse(b"ab") == (Ignored("behind_the_end"),)
        (reply,) = talk.parse(ending)
        assert isinstance(reply, Reply)
        reported = json.loads(reply.text)
        assert reported["error"].startswith("bad_message: audio_fs") and reported["text"] == ""
        assert reported | last == reported
        assert start(talk, audio_fs=8_000).session_id == "session0"


def test_weights_of_hotwords_are_ignored_with_a_warning() -> None:
    for hotwords, codes in (({"a": 20, "b": 30}, ["weights_ignored"]), ({"a": 20, "b": 20}, [])):
        talk = dialect()
        start(talk, mode="2pass", hotwords=hotwords)
        talk.encode(e.Started(session_id="session0", resume_token="", next_chunk_index=0))
        (reply,) = encode_all(talk, segment(0, "one"))
        assert [warning["code"] for warning in reply.get("warnings", [])] == codes


@pytest.mark.parametrize(("text", "mark"), [("一二。", "。"), ("one?", "?"), ("one", "")])
def test_the_mark_at_the_end_of_a_sentence(text: str, mark: str) -> None:
    talk = dialect()
    start(talk, mode="2pass")
    words = tokens("一", "二") if len(text) == 3 and text[0] == "一" else tokens("one")
    (reply,) = encode_all(talk, segment(0, text, *words))
    assert reply["stamp_sents"][0]["punc"] == mark
