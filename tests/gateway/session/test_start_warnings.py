"""What a client asks for, and does not get: one row for each option and kind of model."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.session.start_warnings import warnings_of
from tests.gateway.session.test_registry import START
from wire.messages import Abilities

PLAIN = Abilities(batch_jobs=8)
ZH = Abilities(languages=("zh",))
TAKES = Abilities(languages=("zh", "en"), takes_language=True, hotwords="words")


@pytest.mark.parametrize(
    ("asked", "abilities", "codes"),
    [
        ({}, PLAIN, []),
        ({"language": "en"}, TAKES, []),
        ({"language": "en-US"}, TAKES, []),
        ({"language": "fr"}, TAKES, ["language_unknown"]),
        ({"language": "auto"}, PLAIN, []),
        ({"language": "en"}, PLAIN, ["language_ignored"]),
        ({"language": "zh-CN"}, ZH, []),  # It always recognises this language.
        ({"language": "en"}, ZH, ["language_unknown"]),
        ({"hotwords": ("a",)}, TAKES, []),
        ({"hotwords": ("a",)}, PLAIN, ["hotwords_ignored"]),
        ({"ignored_fields": ("langauge", "x")}, TAKES, ["field_ignored", "field_ignored"]),
        ({"speakers": True}, Abilities(speakers=True), []),
        ({"speakers": True}, TAKES, ["speakers_unknown"]),
        ({"punctuation": True, "itn": True}, Abilities(punctuation=True, itn=True), []),
        ({"punctuation": True, "itn": True}, PLAIN, ["punctuation_missing", "itn_ignored"]),
        ({"punctuation": False, "itn": False}, PLAIN, []),
        # Nothing is known of the model: its worker is of an earlier release, or away.
        ({"language": "en", "hotwords": ("a",)}, Abilities(), []),
        ({"ignored_fields": ("x",)}, Abilities(), ["field_ignored"]),
    ],
)
def test_warnings(asked: dict[str, Any], abilities: Abilities, codes: list[str]) -> None:
    start = replace(START, model="m", abilities=abilities, **asked)
    assert [warning.code for warning in warnings_of(start)] == codes


def test_a_warning_names_the_ignored_option_and_the_reason() -> None:
    asked = {"language": "fr", "hotwords": ("a",), "ignored_fields": ("langauge",)}
    start = replace(START, model="m", abilities=ZH, **asked)
    assert [warning.message for warning in warnings_of(start)] == [
        "langauge: this field has no effect",
        "model m does not know fr, but zh",
        "model m takes no hotwords, they are ignored",
    ]
