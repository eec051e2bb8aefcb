"""The text that counts as shown by a client; any other text must be found."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.public_clients import desktop_app
from tests.public_clients.clones import LIBRARIES, library, replace
from tests.public_clients.html5 import without_times
from tests.public_clients.other_languages import can_run, last_logged, received, texts
from tests.public_clients.packages import CLIENTS, PROGRAMS
from tests.public_clients.said import Outcome
from tests.public_clients.scripts import (
    answer,
    funasr_text,
    last_shown,
    returned,
    sentences,
    subtitles,
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


def test_the_output_of_funasrs_client_in_java() -> None:
    log = "[WebSocketConnectReadThread-14] INFO websocket.FunasrWsClient - "
    reply = '{"mode":"2pass-offline","text":"nine"}'
    output = f"Thread1 is running...\n{log}received: {reply}\n{log}text: nine\n"
    assert received(output) == [{"mode": "2pass-offline", "text": "nine"}]
    assert received(f"{log}sendEof: {{}}\n") == []


@pytest.mark.parametrize(
    "line", ["text {}\n", "textclient closed\n {}\n", "text {}client closed\n\n"]
)
def test_the_output_of_funasrs_library(line: str) -> None:
    reply = "{'mode': 'online', 'text': 'nine', 'is_final': False}"
    output = 'send json {"mode": "online"}\n' + line.format(reply) + "text \n"
    assert returned(output) == [{"mode": "online", "text": "nine", "is_final": False}]


@pytest.mark.parametrize(
    ("mode", "text"), [("offline", "ninetwo"), ("online", "ninetwo"), ("2pass", "nine")]
)
def test_the_text_that_a_client_of_funasr_puts_together(mode: str, text: str) -> None:
    modes = ("2pass-offline", "2pass-online") if mode == "2pass" else (mode, mode)
    replies = [{"mode": modes[0], "text": "nine"}, {"mode": modes[1], "text": "two"}]
    assert funasr_text([*replies, {"error": "busy"}], mode) == text


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


def test_the_output_of_vosks_client_of_subtitles() -> None:
    line = "{}\n00:00:00,{}00 --> 00:00:00,{}50\n{}\n\n"
    assert subtitles(line.format(1, 1, 2, "nine two") + line.format(2, 3, 4, "five") + "\n") == (
        "nine two five"
    )


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


def test_a_library_is_cloned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, tag = next(iter(LIBRARIES.items()))
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "a.java").write_text("class A {}")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "A"), ("tag", tag)):
        subprocess.run(["git", *author, *words], cwd=origin, check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{origin}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"https://github.com/{name}")
    copied = library(name, tmp_path).copy(".", tmp_path / "copy")
    assert (copied / "a.java").read_text() == "class A {}"
    shutil.rmtree(origin)
    assert library(name, tmp_path).copy("a.java", tmp_path / "again").exists()


def test_an_address_that_is_not_in_a_source_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "test.cs"
    source.write_text("ws://localhost")
    replace(source, "ws://localhost", "ws://127.0.0.1")
    assert source.read_text() == "ws://127.0.0.1"
    with pytest.raises(AssertionError):
        replace(source, "ws://localhost", "ws://127.0.0.1")


def test_a_client_without_its_packages_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert can_run("test.js", "git", Path(__file__))
    assert not can_run("test.js", "git", "no-such-program", Path("/no/such.jar"))
    said = "test.js: not run, there is no no-such-program, /no/such.jar\n"
    assert capsys.readouterr().err == said
