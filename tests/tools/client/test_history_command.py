"""``asr history`` against a scripted server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asr_client.options import EXIT_FAILURE, EXIT_OK, EXIT_USAGE
from tests.tools.client.conftest import Command
from tests.tools.client.scripted import Peer

RECORD = {
    "session_id": "s1",
    "user_id": "anna",
    "status": "completed",
    "model": "demo",
    "text": "one two",
    "duration": 1.5,
    "created_at": "2026-01-31T12:00:00.000Z",
}
SEGMENT = {"start_ms": 500, "end_ms": 1500, "text": "one [two]", "speaker": 2, "error": None}


class History:
    """Runs the command against the scripted server."""

    def __init__(self, peer: Peer, command: Command) -> None:
        self._peer = peer
        self._command = command

    def __call__(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        process = self._command("history", *arguments, "--url", self._peer.url)
        out, err = process.communicate(stdin, timeout=60)
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def history(scripted: Peer, command: Command) -> History:
    return History(scripted, command)


def test_sessions_are_listed_page_by_page(scripted: Peer, history: History) -> None:
    pages: list[dict[str, Any]] = [
        {"records": [RECORD] * 2, "next_cursor": "more"},
        {"records": [RECORD | {"session_id": "s3"}], "next_cursor": None},
    ]
    scripted.answer = lambda _: pages.pop(0)
    code, out, err = history("list", "-n", "5", "--user", "anna", "--since", "2026-01-31")
    assert code == EXIT_OK, err
    assert out.count("s1  ") == 2 and out.count("s3  ") == 1
    assert "1.5 s  completed  anna\n    one two\n" in out
    (_, first), (_, second) = scripted.requests
    assert (first["limit"], first["user_id"]) == (["5"], ["anna"])
    assert first["since"][0].startswith("2026-01-31T00:00:00")
    assert (second["limit"], second["cursor"]) == (["3"], ["more"])


@pytest.mark.parametrize(("text", "shown"), [("x" * 100, "x" * 100), ("x" * 101, "x" * 99 + "…")])
def test_a_long_text_is_cut_with_a_mark(
    scripted: Peer, history: History, text: str, shown: str
) -> None:
    scripted.answer = lambda _: {"records": [RECORD | {"preview": text}], "next_cursor": None}
    _, out, _ = history("list")
    assert f"    {shown}\n" in out


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"duration": 0.0}, "(no audio)"),
        ({}, "(no speech)"),
        ({"segment_count": 1}, "(no text)"),
        ({"status": "lost"}, "(no text)"),
        ({"status": "active"}, "(still running)"),
        (
            {"status": "failed", "error": {"code": "bad_audio", "message": "it is text"}},
            "(bad_audio: it is text)",
        ),
    ],
)
def test_a_session_without_a_text_says_why(
    scripted: Peer, history: History, fields: dict[str, Any], reason: str
) -> None:
    record = {**RECORD, "text": "", "segment_count": 0, **fields}
    scripted.answer = lambda _: {"records": [record], "next_cursor": None}
    assert history("list")[1].endswith(f"\n    {reason}\n")
    scripted.answer = lambda _: record | {"segments": []}
    assert history("show", "s1")[1].endswith(f"\n{reason}\n")


@pytest.mark.parametrize("name", ["list", "search"])
def test_words_are_searched_for(scripted: Peer, history: History, name: str) -> None:
    scripted.answer = lambda _: {"records": [RECORD], "next_cursor": None}
    code, out, err = history(name, "one", "天气", "--json")
    assert code == EXIT_OK, err
    assert json.loads(out) == [RECORD]
    assert scripted.requests[0][1]["q"] == ["one 天气"]


def test_no_session_is_a_line_on_standard_error(scripted: Peer, history: History) -> None:
    scripted.answer = lambda _: {"records": [], "next_cursor": None}
    assert history("list", "one") == (EXIT_OK, "", "no session found\n")
    assert history("list", "--json") == (EXIT_OK, "[]\n", "")


def test_a_server_that_would_ignore_the_search_is_reported(
    scripted: Peer, history: History
) -> None:
    scripted.answer = lambda _: {"records": [RECORD], "total": 1}
    code, out, err = history("list", "one")
    assert (code, out) == (EXIT_FAILURE, "")
    assert "neither search nor filters" in err
    assert history("list")[0] == EXIT_OK


def test_a_session_is_shown_with_its_utterances(scripted: Peer, history: History) -> None:
    scripted.answer = lambda _: RECORD | {"segments": [SEGMENT]}
    code, out, err = history("show", "s1")
    assert code == EXIT_OK, err
    assert "0.50 to    1.50 s  Speaker 2: one [two]\n" in out
    assert json.loads(history("show", "s1", "--json")[1])["segments"] == [SEGMENT]


def test_a_failed_utterance_is_shown_with_its_error(scripted: Peer, history: History) -> None:
    error = {"code": "chunk_failed", "message": "three workers were lost"}
    scripted.answer = lambda _: RECORD | {"segments": [SEGMENT | {"text": None, "error": error}]}
    code, out, err = history("show", "s1")
    assert code == EXIT_OK, err
    assert "0.50 to    1.50 s  Speaker 2: chunk_failed: three workers were lost\n" in out


@pytest.mark.parametrize("status", ["completed", "failed", "abandoned"])
def test_a_text_that_is_incomplete_is_named_so(
    scripted: Peer, history: History, status: str
) -> None:
    error = {"code": "deadline", "message": "no result in time"}
    record = RECORD | {"status": status, "error": error}
    scripted.answer = lambda _: {"records": [record], "next_cursor": None}
    assert "\n    one two\n    (incomplete: deadline: no result in time)\n" in history("list")[1]
    lost = SEGMENT | {"text": None, "error": error}
    scripted.answer = lambda _: record | {"segments": [SEGMENT, lost, lost]}
    assert history("show", "s1")[1].endswith("\n2 of 3 utterances without text\n")
    scripted.answer = lambda _: record | {"segments": [SEGMENT]}
    assert history("show", "s1")[1].endswith("\n(incomplete: deadline: no result in time)\n")
    scripted.answer = lambda _: RECORD | {"segments": [SEGMENT]}
    assert "without text" not in history("show", "s1")[1]


def test_transcripts_are_exported_as_the_server_writes_them(
    scripted: Peer, history: History, tmp_path: Path
) -> None:
    scripted.answer = lambda name: f"subtitles of {name}\n"
    assert history("export", "s1")[1] == "subtitles of s1\n"
    assert history("export", "s1", "s2", "-f", "srt", "-o", str(tmp_path))[0] == EXIT_OK
    assert (tmp_path / "s2.srt").read_text(encoding="utf-8") == "subtitles of s2\n"
    asked = [query["format"] for _, query in scripted.requests]
    assert asked == [["text"], ["srt"], ["srt"]]
    code, _, err = history("export", "s1", "-o", str(tmp_path / "x.pdf"))
    assert code == EXIT_USAGE and ".pdf names no format" in err


def test_a_deletion_is_confirmed_first(scripted: Peer, history: History) -> None:
    scripted.answer = lambda name: {"session_id": name, "deleted": True}
    code, out, _ = history("delete", "s1", stdin=b"n\n")
    assert code == EXIT_FAILURE and not scripted.requests
    code, out, err = history("delete", "--yes", "s1", "s2")
    assert code == EXIT_OK, err
    assert out == "s1: deleted\ns2: deleted\n"


@pytest.mark.parametrize("what", ["show", "export"])
def test_an_unknown_session_is_named(history: History, what: str) -> None:
    code, out, err = history(what, "s9")
    assert (code, out) == (EXIT_FAILURE, "")
    assert err == "error: s9: no such session\n"
