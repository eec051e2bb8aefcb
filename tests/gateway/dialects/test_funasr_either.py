"""The first message of a client selects one of FunASR's protocols."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway.dialects.dialect import MessageError, Reply
from gateway.dialects.funasr_either import FunasrEither
from gateway.session import events as e


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
