import base64
import json
from typing import Any

import pytest

from gateway.dialects.dialect import MessageError
from gateway.dialects.native import encode, parse
from gateway.session import events as e

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
    )


def test_start_with_everything() -> None:
    message = START | {
        "user_id": "u",
        "mode": "stream",
        "sample_rate": 8000,
        "language": "zh",
        "hotwords": ["阿里"],
        "partials": True,
        "resume_token": "t",
    }
    assert parse(json.dumps(message)) == e.Start(
        session_id="6f1c",
        user_id="u",
        mode="stream",
        sample_rate_hz=8_000,
        language="zh",
        hotwords=("阿里",),
        partials=True,
        resume_token="t",
    )


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
def test_what_is_no_message_is_a_bad_message(text: str) -> None:
    with pytest.raises(MessageError) as caught:
        parse(text)
    assert caught.value.code == "bad_message"


@pytest.mark.parametrize("junk", ["!", "YQ", "YQ==\n", "Y Q==", "ü", "YQ==YQ=="])
def test_base64_is_strict(junk: str) -> None:
    message = {"action": "chunk", "session_id": "a", "chunk_index": 4, "audio_data": junk}
    with pytest.raises(MessageError) as caught:
        parse(json.dumps(message))
    assert caught.value.code == "bad_base64"
    assert caught.value.chunk_index == 4


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            e.Started(session_id="a", resume_token="t", next_chunk_index=0),
            {
                "type": "ack",
                "status": "session_started",
                "session_id": "a",
                "resume_token": "t",
                "next_chunk_index": 0,
            },
        ),
        (e.ChunkReceived(chunk_index=9), {"type": "ack", "status": "received", "chunk_index": 9}),
        (
            e.PartialText(segment_index=0, text="一"),
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
