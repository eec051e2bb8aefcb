"""The document against the messages that the dialect writes and reads."""

from __future__ import annotations

import json
from typing import Any, cast

import jsonschema_rs
import msgspec
import pytest

from gateway.dialects import native
from gateway.session import events as e
from gateway.web.asyncapi import ANSWERS, CLIENT, asyncapi_document
from wire.messages import Abilities, Token

DOCUMENT = asyncapi_document()
WORD = Token(text="one", start_ms=0, end_ms=400)
SENT: list[e.Answer] = [
    e.Started(
        session_id="s",
        resume_token="t",
        next_chunk_index=0,
        abilities=Abilities(word_times=True),
        warnings=(e.SessionWarning(code="c", message="m"),),
    ),
    e.Resumed(session_id="s", resume_token="t", next_chunk_index=3, next_segment_index=1),
    e.ChunkReceived(chunk_index=3),
    e.PartialText(segment_index=0, text="one", end_ms=400, tokens=(WORD,)),
    e.SegmentText(
        session_id="s",
        chunk_index=3,
        segment_index=0,
        start_ms=0,
        end_ms=400,
        text="one",
        tokens=(WORD,),
        speaker=1,
        language="en",
        confidence=0.5,
        emotion="happy",
        events=("laughter",),
        first_segment_index=0,
    ),
    e.SilentFile(session_id="s", chunk_index=3, start_ms=0, end_ms=900),
    e.Finished(
        session_id="s",
        text="one",
        duration_ms=900,
        chunk_count=4,
        stored=True,
        speakers=(1, None),
        warnings=(e.SessionWarning(code="c", message="m"),),
    ),
    e.Problem(
        code="bad_audio", message="m", chunk_index=3, expected_chunk_index=2, segment_index=1
    ),
]


def schema_of(name: str) -> dict[str, Any]:
    payload = DOCUMENT["components"]["messages"][name]["payload"]
    return {**payload, "components": DOCUMENT["components"]}


@pytest.mark.parametrize("answer", SENT, ids=lambda answer: type(answer).__name__)
def test_answers_are_as_described(answer: e.Answer) -> None:
    (name,) = [name for name, kind in ANSWERS.items() if kind is type(answer)]
    message = json.loads(native.encode(answer))
    jsonschema_rs.validate(schema_of(name), message)
    described = DOCUMENT["components"]["schemas"][type(answer).__name__]["properties"]
    # All fields have a value here, so the description has no other ones.
    assert message.keys() == described.keys()


def test_every_answer_of_the_protocol_is_described() -> None:
    assert {type(answer) for answer in SENT} == set(ANSWERS.values())
    assert native.HEADS.keys() <= set(ANSWERS.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("start", {"action": "start", "session_id": "s", "mode": "chunk", "hotwords": ["a"]}),
        ("chunk", {"action": "chunk", "session_id": "s", "chunk_index": 0, "audio_data": "AAA="}),
        ("finish", {"action": "finish", "session_id": "s"}),
    ],
)
def test_messages_of_the_client_are_as_described(name: str, message: dict[str, Any]) -> None:
    native.parse(json.dumps(message))
    jsonschema_rs.validate(schema_of(name), message)
    wrong = {**message, "action": "other"}
    assert not jsonschema_rs.is_valid(schema_of(name), wrong)
    fields = {field.name for field in msgspec.structs.fields(CLIENT[name])} | {"action"}
    assert DOCUMENT["components"]["schemas"][CLIENT[name].__name__]["properties"].keys() == fields


def test_the_document_refers_only_to_what_it_has() -> None:
    def references(part: object) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [found for value in part.values() for found in references(value)]
        return (
            [found for each in part for found in references(each)] if isinstance(part, list) else []
        )

    for reference in references(DOCUMENT):
        place: object = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = cast(dict[str, object], place)[step]
    names = {reference.rpartition("/")[2] for reference in references(DOCUMENT["operations"])}
    assert names - {"recognition"} == DOCUMENT["components"]["messages"].keys()
