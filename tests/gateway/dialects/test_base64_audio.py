"""Audio in base64, as clients write it."""

from __future__ import annotations

import base64

import pytest

from gateway.dialects.base64_audio import decode
from gateway.dialects.dialect import MessageError

AUDIO = bytes(range(256)) + b"\xfb\xff"
PLAIN = base64.b64encode(AUDIO).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f"data:audio/wav;base64,{PLAIN}",
        f"DATA:audio/webm;codecs=opus;BASE64,{PLAIN}",
        base64.encodebytes(AUDIO).decode(),
        base64.encodebytes(AUDIO).decode().replace("\n", "\r\n\t "),
        PLAIN.rstrip("="),
        base64.urlsafe_b64encode(AUDIO).decode(),
        "data:;base64," + base64.urlsafe_b64encode(AUDIO).decode().rstrip("="),
    ],
)
def test_every_form_is_decoded(text: str) -> None:
    assert decode(text, "audio") == AUDIO


@pytest.mark.parametrize("size", range(6))
def test_any_length_is_decoded_without_padding(size: int) -> None:
    assert decode(base64.b64encode(AUDIO[:size]).decode().rstrip("="), "audio") == AUDIO[:size]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("AAAA!AAA", "'!' is no character of base64"),
        ("AAAA\0AAA", "is no character of base64"),
        ("AA==AAAA", "there is audio behind the padding"),
        ("AAAAA", "5 characters without padding are not possible"),
        ("data:audio/wav,AAAA", "the data URL is not ;base64"),
        ("data:audio/wav;base64,data:audio/wav;base64,AAAA", "':' is no character"),
    ],
)
def test_faults_are_reported(text: str, problem: str) -> None:
    with pytest.raises(MessageError, match="audio: ") as caught:
        decode(text, "audio")
    assert caught.value.code == "bad_base64" and problem in str(caught.value)
