"""The text that counts as shown by a client; any other text must be found."""

from __future__ import annotations

import json

import pytest

from tests.public_clients import desktop_app
from tests.public_clients.compiled import last_logged, texts
from tests.public_clients.html5 import without_times
from tests.public_clients.packages import CLIENTS, PROGRAMS
from tests.public_clients.said import Outcome
from tests.public_clients.scripts import (
    answer,
    last_shown,
    sentences,
    transcription,
    vosk_text,
)


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


def test_the_last_screen_of_funasrs_newer_client() -> None:
    line = "  \033[90m[{}s-{}s]\033[0m {}\n"
    first, second = line.format(0.1, 1.0, "nine two"), line.format(1.5, 2.0, "five")
    partial = "  \033[90m[2.0s-...] six\033[0m\n"
    assert (
        sentences(f"\033[2J\033[H\n{first}{partial}\033[2J\033[H\n{first}{second}")
        == "nine two five"
    )


@pytest.mark.parametrize(
    ("output", "text"),
    [('\n== health ==\n{}\n\n== transcription ==\n{\n  "text": "nine"\n}\n', "nine"), ("no", "")],
)
def test_the_output_of_funasrs_smoke_test(output: str, text: str) -> None:
    assert transcription(output) == text


def test_the_output_of_vosks_clients() -> None:
    lines = [
        '{"partial": "nine"}',
        '{"result": [], "text": "nine two"}',
        '{"alternatives": [{"confidence": 1.0, "text": "five"}]}',
    ]
    assert [vosk_text(json.loads(line)) for line in lines] == ["", "nine two", "five"]


def test_the_output_of_vosks_client_in_go() -> None:
    output = (
        'time="2026-11-29" level=info msg="connecting to ws://localhost"\n'
        'time="2026-11-29" level=info msg="nine two"\n'
    )
    assert last_logged(output) == "nine two"
    assert last_logged("level=info msg=nine\n") == "nine"
    assert last_logged('level=error msg="no such host"\n') == ""


def test_the_output_of_vosks_other_clients() -> None:
    assert texts('Note: old\n{"partial": "ni"}\n{"text": "nine"}\n{"text": "two"}\n') == "nine two"
    assert texts('Result {"partial": "ni"}\nResult {"text": "nine"}\n') == "nine"


def test_the_output_of_funasrs_http_client() -> None:
    assert answer('----\nport: 1\n{"text": "nine", "sentences": [], "code": 0}\n') == "nine"
    assert answer("") == answer("Traceback\nConnectionError") == ""


def test_the_text_of_the_html5_page() -> None:
    assert without_times("0.17:nine\n0.747:two\n2.8:五六").split() == ["nine", "two", "五六"]


def test_each_program_is_run_with_pinned_packages() -> None:
    programs = {client.program for client in CLIENTS} | {desktop_app.PROGRAM.name}
    assert programs == {path.name for path in PROGRAMS.iterdir()}
    for client in CLIENTS:
        assert client.name and client.version[0].isdigit()
