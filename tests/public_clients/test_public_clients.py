"""The text that counts as shown by a client; any other text must be found."""

from __future__ import annotations

import json

import pytest

from tests.public_clients.html5 import without_times
from tests.public_clients.said import Outcome
from tests.public_clients.scripts import last_shown, vosk_text


@pytest.mark.parametrize(
    ("shown", "right"),
    [
        ("nine two", True),
        (" nine\ntwo ", True),
        ("nine", False),
        ("nine two two", False),
        ("", False),
    ],
)
def test_only_the_whole_text_is_right(shown: str, right: bool) -> None:
    outcome = Outcome("client", "abc", "file", said="nine two", shown=shown)
    assert outcome.right is right
    assert ("| right text |" in outcome.row()) is right


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (
            "connect to ws://x\npid0_0: nine\npid0_0: nine two\n[MEETING 0_0] closed\nend\n",
            "nine two",
        ),
        ("\rpid0_0: demo: nine two timestamp: [[0,80],[90,100]]\nend\n", "nine two"),
        ("pid0_0: demo: 二五\nException: closed\n", "二五"),
        ("[MEETING 0_0] Exception: refused\n", ""),
    ],
)
def test_the_output_of_funasrs_client(output: str, text: str) -> None:
    assert last_shown(output) == text


def test_the_output_of_vosks_clients() -> None:
    lines = [
        '{"partial": "nine"}',
        '{"result": [], "text": "nine two"}',
        '{"alternatives": [{"confidence": 1.0, "text": "five"}]}',
    ]
    assert [vosk_text(json.loads(line)) for line in lines] == ["", "nine two", "five"]


def test_the_text_of_the_html5_page() -> None:
    assert without_times("0.17:nine\n0.747:two\n2.8:五六").split() == ["nine", "two", "五六"]
