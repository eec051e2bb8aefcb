"""FunASR's answer to a file over HTTP."""

from __future__ import annotations

import json

import pytest

from gateway.dialects import funasr_file, openai
from gateway.dialects.dialect import MessageError
from gateway.session import events as e
from tests.gateway.dialects.test_deepgram import segment


def test_the_answer_has_the_sentences_that_have_words() -> None:
    segments = (segment(0, "nine two"), segment(1, ""), segment(2, "five", start_ms=4_000))
    warning = e.SessionWarning(code="itn_ignored", message="no")
    found = openai.Transcript(
        text="nine two five", duration_ms=7_000, segments=segments, warnings=(warning,)
    )
    answer = json.loads(funasr_file.encode(found, funasr_file.parse({})))
    assert (answer["text"], answer["code"]) == ("nine two five", 0)
    assert [sentence["text"] for sentence in answer["sentences"]] == ["nine two", "five"]
    assert answer["sentences"][1]["start"] == 4_000
    assert answer["warnings"] == [{"code": "itn_ignored", "message": "no"}]


def test_fields_of_openai_are_optional() -> None:
    wanted = funasr_file.parse({"language": ["zh"], "response_format": ["srt"]})
    assert (wanted.start.model, wanted.start.language) == ("", "zh")
    assert wanted.response_format == "json"
    with pytest.raises(MessageError):
        funasr_file.parse({"itn": ["perhaps"]})


def test_an_error_has_a_code_and_a_message() -> None:
    assert funasr_file.error("bad_audio", "no") == {"code": 1, "msg": "bad_audio: no"}
