"""Checks that several protocols share."""

from __future__ import annotations

import math

import pytest

from gateway.audio.formats import RAW_SAMPLE_RATE_HZ_MAX, RAW_SAMPLE_RATE_HZ_MIN
from gateway.dialects.dialect import MessageError
from gateway.dialects.fields import (
    BINARY_JSON_BYTES_MAX,
    HOTWORD_CHARS_MAX,
    HOTWORDS_MAX,
    as_text,
    in_range,
    prompt_hotwords,
    storable,
    storable_hotwords,
)

BAY = ("San Francisco Bay", "PyTorch")


@pytest.mark.parametrize("text", ["", "阿里", "a\n", "\U0001f600"])
def test_a_text_that_can_be_stored_is_returned(text: str) -> None:
    assert storable(text, "language") is text


@pytest.mark.parametrize("text", ["a\0", "\ud800", "a\udfffb"])
def test_nul_and_lone_surrogates_are_refused_by_name(text: str) -> None:
    with pytest.raises(MessageError, match="language"):
        storable(text, "language")
    with pytest.raises(MessageError, match="hotwords"):
        storable_hotwords(["good", text], "hotwords")


def test_hotwords_have_limits() -> None:
    most = ["w" * HOTWORD_CHARS_MAX] * HOTWORDS_MAX
    assert storable_hotwords(iter(most), "hotwords") == tuple(most)
    for words in ([*most, "w"], ["w" * (HOTWORD_CHARS_MAX + 1)]):
        with pytest.raises(MessageError, match="at most"):
            storable_hotwords(words, "hotwords")


def test_an_empty_hotword_is_none() -> None:
    assert storable_hotwords(["", " zero one\n", "\t"], "hotwords") == ("zero one",)


@pytest.mark.parametrize("rate", [RAW_SAMPLE_RATE_HZ_MIN, 16_000.0, RAW_SAMPLE_RATE_HZ_MAX])
def test_a_rate_in_range(rate: float) -> None:
    assert in_range(rate, "rate") == rate


@pytest.mark.parametrize(
    "rate",
    [RAW_SAMPLE_RATE_HZ_MIN - 1, RAW_SAMPLE_RATE_HZ_MAX + 0.5, math.nan, math.inf, -math.inf],
)
def test_a_rate_out_of_range(rate: float) -> None:
    with pytest.raises(MessageError, match="rate must be from 8000 to 48000"):
        in_range(rate, "rate")


@pytest.mark.parametrize(
    ("prompt", "hotwords"),
    [
        ("", ()),
        ("Kubernetes, kubectl; San Francisco Bay\nPyTorch.", ("Kubernetes", "kubectl", *BAY)),
        ("人工智能、浦东发展银行", ("人工智能", "浦东发展银行")),
        ("以下是普通话的句子。", ()),
        ("The following is about clusters.", ()),
        (", ".join(["w"] * (HOTWORDS_MAX + 1)), ()),
        ("w" * (HOTWORD_CHARS_MAX + 1), ()),
    ],
)
def test_a_prompt_that_lists_words_is_hotwords(prompt: str, hotwords: tuple[str, ...]) -> None:
    assert prompt_hotwords(prompt) == hotwords


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b'{"eof":1}', True),
        (b'{"a": {"b": 2}}\n', True),
        (b"{}", True),
        (b'\n {"eof":1}', True),
        (b'\xef\xbb\xbf{"eof":1}', True),
        (b"{\0\1}", False),
        (b"[1]", False),
        (b"{" * 10, False),
        (b'{"a":' + b"[" * 1_500 + b"]" * 1_500 + b"}", False),
        (b'{"a": "%s"}' % (b"x" * BINARY_JSON_BYTES_MAX), False),
    ],
)
def test_json_in_a_binary_message_is_a_text(message: bytes, text: bool) -> None:
    assert isinstance(as_text(message), str) is text
    assert as_text("text") == "text"
