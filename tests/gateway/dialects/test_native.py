"""The native protocol: parsing of messages, and encoding of answers."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.audio.wav import DeclaredAudio
from gateway.dialects.dialect import MessageError
from gateway.dialects.native import LARGE_CHARS, StartMessage, _parse_any, encode, parse
from gateway.session import events as e
from wire.messages import Abilities

START = {"action": "start", "session_id": "6f1c"}


def test_start_has_defaults() -> None:
    assert parse(json.dumps(START)) == e.Start(
        session_id="6f1c",
        user_id="",
        mode="auto",
        sample_rate_hz=16_000,
        language="",
        hotwords=(),
        partials=False,
        resume_token=None,
        result_per_file=True,
    )


def test_start_with_everything() -> None:
    message = START | {
        "user_id": "u",
        "mode": "stream",
        "sample_rate": 8000,
        "model": "mandarin",
        "language": "zh",
        "hotwords": ["阿里"],
        "partials": True,
        "speakers": True,
        "punctuation": False,
        "itn": True,
        "resume_token": "t",
    }
    assert parse(json.dumps(message)) == e.Start(
        session_id="6f1c",
        user_id="u",
        mode="stream",
        sample_rate_hz=8_000,
        model="mandarin",
        language="zh",
        hotwords=("阿里",),
        partials=True,
        speakers=True,
        punctuation=False,
        itn=True,
        resume_token="t",
    )


def test_null_is_a_field_that_is_not_set() -> None:
    unset = dict.fromkeys(StartMessage.__struct_fields__) | {"unknown": None}
    assert parse(json.dumps(unset | START)) == parse(json.dumps(START))
    for message in ({"action": "finish", "session_id": None}, {"action": None}):
        with pytest.raises(MessageError, match="missing required field"):
            parse(json.dumps(message))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"action": "begin"}, "action: must be start, chunk or finish"),
        ({"mode": "fast"}, "mode: must be auto, stream or chunk"),
        ({"encoding": "mp3"}, "encoding: must be pcm_s16le"),
        ({"session_id": "a b"}, "session_id: must be 1 to 128 letters, digits or . _ : -"),
        ({"session_id": 7}, "session_id: Expected `str`, got `int`"),
    ],
)
def test_a_wrong_value_is_answered_with_the_right_ones(
    fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(MessageError) as refused:
        parse(json.dumps(START | fields))
    assert str(refused.value).startswith(problem)


def test_fields_of_a_start_that_have_no_effect_are_named() -> None:
    message = START | {"langauge": "zh", "x" * 99: 2, "hotword": ""}
    start = parse(json.dumps(message))
    assert isinstance(start, e.Start)
    assert start.ignored_fields == ("langauge", "x" * 64, "hotword")
    many = parse(json.dumps(START | {f"field{n}": n for n in range(40)}))
    assert isinstance(many, e.Start) and len(many.ignored_fields) == 16


@pytest.mark.parametrize(
    ("fields", "declared"),
    [
        ({}, False),
        ({"sample_rate": 16_000}, False),
        ({"encoding": "pcm_s16le", "sample_rate": 16_000}, True),
        ({"encoding": "pcm_s16le", "mode": "stream"}, True),
    ],
)
def test_raw_pcm_may_be_declared(fields: dict[str, object], declared: bool) -> None:
    start = parse(json.dumps(START | fields))
    assert isinstance(start, e.Start)
    assert start.declared_raw == declared
    form = DeclaredAudio(sample_rate_hz=16_000, encoding="linear16")
    assert start.declared == (form if declared else None)
    assert start.ignored_fields == ()


def test_an_encoding_without_a_rate_has_no_effect_and_reports_it() -> None:
    start = parse(json.dumps(START | {"encoding": "pcm_s16le"}))
    assert isinstance(start, e.Start)
    assert not start.declared_raw
    assert start.ignored_fields == ("encoding (without sample_rate or mode stream)",)
    with pytest.raises(MessageError):
        parse(json.dumps(START | {"encoding": "mp3", "sample_rate": 16_000}))


SEGMENT = e.SegmentText(
    session_id="a", chunk_index=7, segment_index=1, start_ms=2, end_ms=3, text="x"
)


def test_a_result_has_only_the_fields_that_the_model_reports() -> None:
    plain = {
        "type": "chunk_result",
        "session_id": "a",
        "chunk_index": 7,
        "segment_index": 1,
        "start_ms": 2,
        "end_ms": 3,
        "text": "x",
    }
    assert json.loads(encode(SEGMENT)) == plain
    known = {"language": "zh", "confidence": 0.0, "emotion": "happy", "events": ["laughter"]}
    full = replace(SEGMENT, **{**known, "events": ("laughter",)})
    assert json.loads(encode(full)) == plain | known


def test_chunks_as_json_and_as_binary() -> None:
    audio = bytes(range(256))
    message = {
        "action": "chunk",
        "session_id": "6f1c",
        "chunk_index": 3,
        "audio_data": base64.b64encode(audio).decode(),
    }
    assert parse(json.dumps(message)) == e.Chunk(data=audio, chunk_index=3, session_id="6f1c")
    assert parse(audio) == e.Chunk(data=audio, chunk_index=None, session_id=None)


def test_unknown_fields_of_a_chunk_are_named() -> None:
    message = {"action": "chunk", "session_id": "6f1c", "chunk_index": 3, "audio_data": "YWI="}
    for audio in ("YWI=", "YWI", "YWJj" * (LARGE_CHARS // 4 + 1)):
        more = {"is_final": True, "unset": None, "audio_data": audio}
        chunk = parse(json.dumps(message | more))
        assert isinstance(chunk, e.Chunk) and chunk.data[:2] == b"ab"
        assert chunk.ignored_fields == ("is_final",)


def test_finish() -> None:
    assert parse('{"action":"finish","session_id":"6f1c"}') == e.Finish(session_id="6f1c")


BAD = [
    "",
    "{",
    "[]",
    "null",
    "NaN",
    '{"action":"start","session_id":"a","x":1e400}',
    '{"action":"start","session_id":"a","sample_rate":NaN}',
    '{"action":"start","action":"start","session_id":"a"}',
    '{"action":"start","session_id":"a\\u0000"}',
    '{"action":"start","session_id":"a","user_id":"\\u0000"}',
    '{"action":"start","session_id":"a","user_id":"\\ud800"}',
    '{"action":"start","session_id":"' + "a" * 200 + '"}',
    '{"action":"start","session_id":7}',
    '{"action":"start"}',
    '{"action":"launch","session_id":"a"}',
    '{"session_id":"a"}',
    '{"action":"start","session_id":"a","mode":"fast"}',
    '{"action":"start","session_id":"a","mode":["auto"]}',
    '{"action":"start","session_id":"a","sample_rate":true}',
    '{"action":"start","session_id":"a","sample_rate":1}',
    '{"action":"start","session_id":"a","partials":1}',
    '{"action":"start","session_id":"a","hotwords":"x"}',
    '{"action":"start","session_id":"a","hotwords":[1]}',
    '{"action":"finish"}',
    '{"action":"chunk","session_id":"a","audio_data":""}',
    '{"action":"chunk","session_id":"a","chunk_index":-1,"audio_data":""}',
    '{"action":"chunk","session_id":"a","chunk_index":1.0,"audio_data":""}',
    '{"action":"chunk","session_id":"a","chunk_index":true,"audio_data":""}',
    '{"action":"chunk","session_id":"a","chunk_index":0}',
    '{"action":"chunk","session_id":"a","chunk_index":0,"audio_data":[1]}',
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"action":"chunk","session_id":"a","chunk_index":' + "9" * 5_000 + "}",
]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_malformed_messages_are_bad_messages(text: str) -> None:
    with pytest.raises(MessageError) as caught:
        parse(text)
    assert caught.value.code == "bad_message"


@pytest.mark.parametrize("junk", ["!", "Y", "ü", "YQ==YQ==", "data:audio/wav,YQ=="])
def test_invalid_base64_is_an_error(junk: str) -> None:
    message = {"action": "chunk", "session_id": "a", "chunk_index": 4, "audio_data": junk}
    with pytest.raises(MessageError) as caught:
        parse(json.dumps(message))
    assert caught.value.code == "bad_base64"
    assert caught.value.chunk_index == 4


@given(audio=st.text("AQYZaz09+/=-_ \n", max_size=12))
@example("0000=")
@example("YZ==")
def test_base64_needs_no_padding_and_may_have_spaces(audio: str) -> None:
    message = {"action": "chunk", "session_id": "a", "chunk_index": 4, "audio_data": audio}
    digits = re.sub(r"\s", "", audio).rstrip("=")
    if "=" in digits or len(digits) % 4 == 1:
        with pytest.raises(MessageError):
            parse(json.dumps(message))
    else:
        expected = base64.urlsafe_b64decode(re.sub(r"\+", "-", digits).replace("/", "_") + "==")
        assert parse(json.dumps(message)) == e.Chunk(data=expected, chunk_index=4, session_id="a")


FIELDS = st.one_of(
    st.tuples(st.just("action"), st.sampled_from(["chunk", "finish", "other"])),
    st.tuples(st.just("session_id"), st.sampled_from(["a", "b", "", 'a"', "a\\", "\n"])),
    st.tuples(st.just("chunk_index"), st.sampled_from([0, 7, -1, 1.0, True, "7", None])),
    st.tuples(st.just("audio_data"), st.sampled_from(["", "YQ==", "YQ", 'Y"', 3])),
    st.tuples(st.sampled_from(["x", "", "audio_data\\"]), st.sampled_from([1, "x", {"x": 1}])),
)
WHOLE = [("action", "chunk"), ("session_id", "a"), ("chunk_index", 7), ("audio_data", "YQ==")]


@example(
    fields=[("session_id", "a"), ("session_id", "a"), ("chunk_index", 0), ("audio_data", "")],
    separators=(",", ":"),
)
@given(
    fields=st.one_of(
        st.lists(FIELDS, max_size=6),
        st.tuples(st.permutations(WHOLE), st.lists(FIELDS, max_size=2)).map(lambda t: t[0] + t[1]),
    ),
    separators=st.sampled_from([(",", ":"), (" , ", " : ")]),
)
def test_the_fast_way_of_chunks_takes_no_more_than_the_general_way(
    fields: list[tuple[str, Any]], separators: tuple[str, str]
) -> None:
    comma, colon = separators
    text = comma.join(json.dumps(key) + colon + json.dumps(value) for key, value in fields)
    assert outcome(parse, f"{{{text}}}") == outcome(_parse_any, f"{{{text}}}")


@pytest.mark.parametrize(
    ("index", "named"),
    [
        (',"chunk_index":7', 7),
        ("", None),
        (',"chunk_index":"x"', None),
        (',"chunk_index":-1', None),
    ],
)
def test_bad_audio_data_before_its_index_is_answered(index: str, named: int | None) -> None:
    """Clients order their fields as they like."""
    for audio, code in (('"?"', "bad_base64"), ("7", "bad_message")):
        with pytest.raises(MessageError) as raised:
            parse(f'{{"action":"chunk","session_id":"a","audio_data":{audio}{index}}}')
        assert (raised.value.code, raised.value.chunk_index) == (code, named)


@pytest.mark.parametrize("field", ["action", "session_id", "mode", "audio_data", "language"])
def test_a_lone_surrogate_is_a_bad_message(field: str) -> None:
    fields: dict[str, Any] = {"action": "start", "session_id": "a", field: "\ud800"}
    if field == "audio_data":
        fields |= {"action": "chunk", "chunk_index": 0}
    with pytest.raises(MessageError):
        parse(json.dumps(fields))


def outcome(reader: Callable[[str], Any], text: str) -> Any:
    try:
        return reader(text)
    except MessageError as error:
        return str(error), error.code, error.chunk_index


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"action":"start","session_id":"a","sample_rate":1}', "sample_rate: "),
        ('{"action":"start","session_id":"a","hotwords":["a",7]}', "hotwords[1]: "),
        ('{"action":"launch","session_id":"a"}', "action: "),
        ('{"action":"start"}', "`session_id`"),
    ],
)
def test_an_error_names_its_field(text: str, named: str) -> None:
    with pytest.raises(MessageError, match=re.escape(named)):
        parse(text)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            e.Started(
                session_id="a",
                resume_token="t",
                next_chunk_index=0,
                model="zh",
                abilities=Abilities(languages=("zh",), hotwords="words", batch_jobs=8),
                warnings=(e.SessionWarning(code="field_ignored", message="x"),),
            ),
            {
                "type": "ack",
                "status": "session_started",
                "session_id": "a",
                "resume_token": "t",
                "next_chunk_index": 0,
                "model": "zh",
                "abilities": {
                    **dict.fromkeys(Abilities.__struct_fields__, False),
                    "languages": ["zh"],
                    "hotwords": "words",
                    "batch_jobs": 8,
                },
                "warnings": [{"code": "field_ignored", "message": "x"}],
            },
        ),
        (e.ChunkReceived(chunk_index=9), {"type": "ack", "status": "received", "chunk_index": 9}),
        (
            e.PartialText(segment_index=0, text="一", end_ms=900),
            {"type": "partial_result", "segment_index": 0, "text": "一"},
        ),
        (
            e.Finished(session_id="a", text="x", duration_ms=12_300, chunk_count=62, stored=True),
            {
                "type": "final_result",
                "session_id": "a",
                "text": "x",
                "duration": 12.3,
                "chunk_count": 62,
                "stored": True,
            },
        ),
        (e.Problem(code="c", message="m"), {"type": "error", "code": "c", "message": "m"}),
        (
            e.Problem(code="c", message="m", chunk_index=0, expected_chunk_index=1),
            {
                "type": "error",
                "code": "c",
                "message": "m",
                "chunk_index": 0,
                "expected_chunk_index": 1,
            },
        ),
    ],
)
def test_answers_on_the_wire(answer: e.Answer, expected: dict[str, Any]) -> None:
    assert json.loads(encode(answer)) == expected


def chunk_of(audio: str, **changes: object) -> str:
    fields = {"action": "chunk", "session_id": "s", "chunk_index": 3, "audio_data": audio}
    return json.dumps({**fields, **changes})


@pytest.mark.parametrize("size", [LARGE_CHARS // 4 * 3 + more for more in range(4)] + [2_000_001])
def test_a_large_chunk_is_decoded_like_a_small_one(size: int) -> None:
    audio = random.Random(size).randbytes(size)
    text = base64.b64encode(audio).decode()
    expected = e.Chunk(data=audio, chunk_index=3, session_id="s")
    for message in (
        chunk_of(text),
        chunk_of(f"data:audio/wav;base64,{text}"),
        chunk_of(base64.urlsafe_b64encode(audio).decode().rstrip("=")),
    ):
        assert parse(message) == expected
    assert parse(chunk_of(text, client="x")) == replace(expected, ignored_fields=("client",))


def test_a_large_chunk_is_checked_like_a_small_one() -> None:
    audio = "AAAA" * LARGE_CHARS
    repeated = chunk_of(audio)[:-1] + ',"chunk_index":4}'
    for message, code in (
        (repeated, "bad_message"),
        (chunk_of(audio, chunk_index=-1), "bad_message"),
        (chunk_of(audio[:-4] + "AA==" + audio), "bad_base64"),
        (chunk_of(audio[: LARGE_CHARS - 4] + "AA==" + audio), "bad_base64"),
        (chunk_of(audio + "!"), "bad_base64"),
        (chunk_of("", audio_data=[audio]), "bad_message"),
        (json.dumps({"action": "finish", "session_id": "s" * LARGE_CHARS}), "bad_message"),
    ):
        with pytest.raises(MessageError) as caught:
            parse(message)
        assert caught.value.code == code


def test_a_message_may_be_binary() -> None:
    assert parse(json.dumps(START).encode()) == parse(json.dumps(START))
    finish = b'{"action":"finish","session_id":"s"}'
    assert parse(finish) == e.Finish(session_id="s")
    chunk = chunk_of("AAAA" * LARGE_CHARS)
    assert parse(chunk.encode()) == parse(chunk)
    for file in (finish[:-1], b'{"status":"ok"}'):
        assert parse(file) == e.Chunk(data=file, chunk_index=None, session_id=None)
