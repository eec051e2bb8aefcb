"""Names and codes of languages that clients send."""

from __future__ import annotations

import pytest

from wire.languages import primary_language


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("zh", "zh"),
        ("zh-CN", "zh"),
        ("cmn", "zh"),
        ("cmn-Hans-CN", "zh"),
        ("zho", "zh"),
        ("Chinese", "zh"),
        ("中文", "zh"),
        (" EN_us", "en"),
        ("eng", "en"),
        ("yue", "yue"),
        ("pt_BR", "pt"),
        ("auto", "auto"),
        ("xx", "xx"),
        ("", ""),
    ],
)
def test_a_language_has_one_code(tag: str, code: str) -> None:
    assert primary_language(tag) == code
