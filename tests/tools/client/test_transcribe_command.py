"""``asr transcribe`` against a scripted server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from asr_client import transcribe_command
from asr_client.audio import READ_BYTES, UnknownDurationError
from asr_client.display import Result, Status
from asr_client.options import (
    EXIT_BUSY,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
)
from asr_client.sources import Source
from asr_client.transcribe_command import Options, exit_code, pieces_of, split_hotwords
from tests.tools.client.conftest import Command
from tests.tools.client.scripted import BUSY, Peer

SAMPLE = Path(__file__).parents[3] / "tools" / "samples" / "digits_en.wav"


class Transcribe:
    """Runs the command against the scripted server."""

    def __init__(self, peer: Peer, command: Command) -> None:
        self._peer = peer
        self._command = command

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self._command("transcribe", "--url", self._peer.url, *arguments)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def transcribe(scripted: Peer, command: Command) -> Transcribe:
    return Transcribe(scripted, command)


def test_a_file_is_sent_whole_and_only_its_text_goes_to_stdout(
    scripted: Peer, transcribe: Transcribe
) -> None:
    code, out, err = transcribe(str(SAMPLE))
    assert (code, out) == (EXIT_OK, "one two\n"), err
    assert b"".join(scripted.audio) == SAMPLE.read_bytes()
    assert {len(piece) for piece in scripted.audio[:-1]} == {READ_BYTES}
    assert "1.50 s of audio" in err and scripted.started["session_id"] in err


def test_a_text_that_cannot_be_written_can_be_exported(
    scripted: Peer, transcribe: Transcribe
) -> None:
    code, out, err = transcribe(str(SAMPLE), "-o", "/dev/full")
    assert (code, out) == (EXIT_FAILURE, "")
    session_id = scripted.started["session_id"]
    assert f"/dev/full: No space left on device; asr history export {session_id} has the" in err


def test_the_options_reach_the_server_and_its_warnings_the_user(
    scripted: Peer, transcribe: Transcribe
) -> None:
    scripted.warnings = [{"code": "hotwords_ignored", "message": "hotwords are ignored"}]
    options = ["--language", "en", "--model", "demo", "--user", "anna", "--speakers"]
    code, _, err = transcribe(str(SAMPLE), str(SAMPLE.with_name("digits_zh.wav")), *options)
    assert code == EXIT_OK
    reported = {"language": "en", "model": "demo", "user_id": "anna", "speakers": True}
    assert reported.items() <= scripted.started.items()
    assert err.count("warning: hotwords are ignored") == 1


def test_a_closed_standard_output_ends_the_command(
    scripted: Peer, transcribe: Transcribe, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.wav"
    copy.write_bytes(SAMPLE.read_bytes())
    process = transcribe.start(str(SAMPLE), str(copy))
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == EXIT_FAILURE
    assert process.stderr.read().decode().splitlines() == ["error: standard output: Broken pipe"]
    assert b"".join(scripted.audio) == SAMPLE.read_bytes()


def test_a_file_without_audio_is_a_failure(
    scripted: Peer, transcribe: Transcribe, tmp_path: Path
) -> None:
    scripted.duration_s = 0.0
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    code, out, err = transcribe(str(empty))
    assert (code, out.strip()) == (EXIT_FAILURE, "")
    assert f"error: {empty}: it is empty, or contains no audio" in err


def test_unused_parts_of_a_file_are_reported_with_its_name(
    scripted: Peer, transcribe: Transcribe
) -> None:
    scripted.final_warnings = [{"code": "loudest_only", "message": "only number 1 was used"}]
    code, _, err = transcribe(str(SAMPLE))
    assert code == EXIT_OK
    assert f"{SAMPLE.name}: only number 1 was used" in err


def test_hotwords_with_spaces_are_separated_by_commas() -> None:
    assert split_hotwords("魔搭 达摩院") == ("魔搭", "达摩院")
    assert split_hotwords("New York, 魔搭，") == ("New York", "魔搭")
    assert split_hotwords(" ") == ()


def test_a_short_address_is_enough(scripted: Peer, command: Command) -> None:
    root = scripted.url.removesuffix("/ws/asr")
    for url in (f"{root}/", root.removeprefix("ws://"), root.replace("ws", "http")):
        process = command("transcribe", "--url", url, str(SAMPLE))
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (EXIT_OK, b"one two\n"), err


def test_realtime_sends_a_file_at_the_pace_of_speech(
    scripted: Peer, transcribe: Transcribe, tmp_path: Path
) -> None:
    path = tmp_path / "speech.pcm"
    path.write_bytes(bytes(32_000))
    began_s = time.monotonic()
    code, _, err = transcribe(str(path), "--realtime", "--chunk-ms", "200", "--no-partials")
    assert code == EXIT_OK, err
    assert time.monotonic() - began_s >= 1.0
    assert [len(piece) for piece in scripted.audio] == [6_400] * 5
    assert scripted.started["partials"] is False
    assert "0.00 to    0.90 s  segment 0" in err


def test_mode_chunk_sends_a_file_as_one_chunk(scripted: Peer, transcribe: Transcribe) -> None:
    assert transcribe(str(SAMPLE), "--mode", "chunk")[0] == EXIT_OK
    assert scripted.audio == [SAMPLE.read_bytes()]
    assert scripted.started["mode"] == "chunk"


def test_standard_input_is_sent_as_it_arrives(scripted: Peer, transcribe: Transcribe) -> None:
    process = transcribe.start("-")
    assert process.stdin is not None
    process.stdin.write(b"first ")
    process.stdin.flush()
    assert scripted.got_audio.wait(30)
    assert scripted.audio == [b"first "]
    stdout, stderr = process.communicate(b"second")
    assert (process.returncode, stdout) == (EXIT_OK, b"one two\n"), stderr
    assert scripted.audio == [b"first ", b"second"]


@pytest.mark.parametrize("is_finishing", [True, False])
def test_an_interrupt_ends_the_audio_and_reports_that_the_text_is_partial(
    scripted: Peer, transcribe: Transcribe, is_finishing: bool, tmp_path: Path
) -> None:
    scripted.is_finishing = is_finishing
    process = transcribe.start("-", "-o", str(tmp_path / "x.txt"))
    assert process.stdin is not None
    process.stdin.write(b"never ending")
    process.stdin.flush()
    assert scripted.got_audio.wait(30)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == EXIT_INTERRUPTED  # Standard input stays open.
    assert process.stderr is not None
    err = process.stderr.read()
    assert b"interrupted: -: the text is partial" in err
    text = (tmp_path / "x.partial.txt").read_text(encoding="utf-8")
    assert text == ("one two\n" if is_finishing else "segment 0\n")
    assert not (tmp_path / "x.txt").exists()


def test_a_second_interrupt_ends_the_program(scripted: Peer, transcribe: Transcribe) -> None:
    scripted.is_finishing = False
    process = transcribe.start("-")
    assert process.stdin is not None
    process.stdin.write(b"never ending")
    process.stdin.flush()
    assert scripted.got_audio.wait(30)
    while process.poll() is None:  # The second one may come before the first has been handled.
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.1)
    assert process.returncode in (EXIT_INTERRUPTED, -signal.SIGINT)


def test_a_failed_segment_is_shown_by_the_exit_code(scripted: Peer, transcribe: Transcribe) -> None:
    scripted.problem = {"code": "chunk_failed", "message": "three attempts", "chunk_index": 0}
    code, out, err = transcribe(str(SAMPLE))
    assert (code, out) == (EXIT_FAILURE, "one two\n")
    assert "chunk_failed: three attempts" in err


def test_a_lost_connection_is_a_line_on_standard_error(
    scripted: Peer, transcribe: Transcribe
) -> None:
    scripted.losses = 1
    code, out, err = transcribe(str(SAMPLE), "-q")
    assert (code, out) == (EXIT_OK, "one two\n"), err
    session_id = scripted.started["session_id"]
    assert err == f"connection lost (close code 1012), resuming session {session_id}\n"


def test_a_busy_server_is_asked_again(scripted: Peer, transcribe: Transcribe) -> None:
    scripted.refusals = [BUSY, BUSY]
    code, out, err = transcribe(str(SAMPLE))
    assert (code, out) == (EXIT_OK, "one two\n")
    assert err.count("warning: the server is busy: no worker is ready; waiting") == 1


def test_a_server_that_stays_busy_has_a_distinct_exit_code(
    scripted: Peer, transcribe: Transcribe
) -> None:
    scripted.refusals = [BUSY]
    code, out, err = transcribe(str(SAMPLE), "--wait", "0")
    assert (code, out) == (EXIT_BUSY, "")
    assert err == "error: the server is busy: no worker is ready; try again in 0.01 s\n"


def test_a_source_waits_for_others_of_the_same_command(
    scripted: Peer, transcribe: Transcribe
) -> None:
    scripted.sessions_max = 1
    scripted.may_end.clear()
    other = str(SAMPLE.with_name("digits_zh.wav"))
    process = transcribe.start(str(SAMPLE), other, "-j", "2", "--wait", "1")
    while process.poll() is None and scripted.refused < 200:  # 0.01 s each, at least.
        time.sleep(0.01)
    scripted.may_end.set()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (EXIT_OK, b"one two\n" * 2), err


def test_a_wrong_token_is_reported_once_in_a_plain_sentence(
    scripted: Peer, transcribe: Transcribe
) -> None:
    body = '{"code":"unauthorized","message":"this server requires an access token"}'
    scripted.refusals = [(HTTPStatus.UNAUTHORIZED, body)] * 9
    other = str(SAMPLE.with_name("digits_zh.wav"))
    code, out, err = transcribe(str(SAMPLE), other, "--token", "wrong")
    assert (code, out) == (EXIT_FAILURE, "")
    first, *rest = err.splitlines()
    assert "access token" in first and "ASR_TOKEN" in first and "{" not in first
    assert rest == ["error: 1 of 2 sources were not tried"]


def test_a_port_that_never_answers_is_reported_at_once(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        process = command("transcribe", "--url", url, "-", module="asr_client")
        _, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_FAILURE
    assert b"no answer within 1.5 s" in err and err.count(b"\n") == 1
    assert transcribe_command.CONTACT_S < 2


def test_a_source_that_cannot_be_read_ends_the_command(
    transcribe: Transcribe, unused_tcp_port: int
) -> None:
    """At once: the server would wait for more audio for a minute."""
    url = f"http://127.0.0.1:{unused_tcp_port}/speech.mp3"
    code, out, err = transcribe(url)
    assert (code, out.strip()) == (EXIT_FAILURE, "")
    assert err.count(url) == 1 and "refused" in err


def test_a_port_where_nothing_listens_is_reported(command: Command, unused_tcp_port: int) -> None:
    process = command("transcribe", "--url", f"localhost:{unused_tcp_port}", str(SAMPLE))
    _, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_FAILURE
    assert b"nothing listens on this port" in err and err.count(b"\n") == 1


def test_an_address_that_is_none_is_wrong_usage(command: Command) -> None:
    process = command("transcribe", "--url", "ftp://host", str(SAMPLE))
    _, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_USAGE
    assert b"not the address of a server" in err


def test_several_files_are_written_in_their_order_and_a_missing_one_is_skipped(
    scripted: Peer, transcribe: Transcribe, tmp_path: Path
) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).write_bytes(b"audio")
    code, out, err = transcribe(str(tmp_path), "/nowhere/at/all.wav", "-j", "3")
    assert (code, out) == (EXIT_FAILURE, "one two\n" * 3)
    assert err.count("error: ") == 1 and "/nowhere/at/all.wav" in err
    assert [name for name in ("a.wav", "b.wav", "c.wav") if name in err] == [
        "a.wav",
        "b.wav",
        "c.wav",
    ]
    assert len(scripted.starts) == 3


def test_subtitles_are_those_of_the_server_once_it_has_them(
    scripted: Peer, transcribe: Transcribe, tmp_path: Path
) -> None:
    answers = [None, "1\n00:00:00,000 --> 00:00:01,000\none two\n"]

    def answer(session_id: str) -> str | None:
        assert session_id == scripted.started["session_id"]
        return answers.pop(0)

    scripted.answer = answer
    code, _, err = transcribe(str(SAMPLE), "-o", str(tmp_path / "x.srt"))
    assert code == EXIT_OK, err
    assert (tmp_path / "x.srt").read_text(encoding="utf-8").endswith("one two\n")
    assert [query for _, query in scripted.requests] == [{"format": ["srt"]}] * 2


def test_json_of_several_sources_is_a_line_each_failures_included(
    scripted: Peer, transcribe: Transcribe, tmp_path: Path
) -> None:
    scripted.answer = lambda session_id: {"session_id": session_id, "text": "一 two"}
    (tmp_path / "a.wav").write_bytes(b"audio")
    (tmp_path / "b.wav").write_bytes(b"audio")
    (tmp_path / "b.wav").chmod(0)
    code, out, err = transcribe(str(tmp_path), "--json")
    is_root = os.geteuid() == 0  # root can read any file
    assert code == (EXIT_OK if is_root else EXIT_FAILURE), err
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["text"], first["complete"]) == ("一 two", True)
    assert first["file"].endswith("a.wav") and second["file"].endswith("b.wav")
    assert is_root or "Permission denied" in second["error"]


def test_json_names_the_sources_that_do_not_exist(
    scripted: Peer, transcribe: Transcribe, tmp_path: Path
) -> None:
    missing = str(tmp_path / "none.wav")
    code, out, _ = transcribe(missing, "--json")
    assert code == EXIT_FAILURE
    alone = json.loads(out)
    assert alone == {"file": missing, "error": f"{missing}: No such file or directory"}
    scripted.answer = lambda session_id: {"session_id": session_id, "text": "一 two"}
    code, out, _ = transcribe(str(SAMPLE), missing, "--json")
    assert code == EXIT_FAILURE
    lines = [json.loads(line) for line in out.splitlines()]
    assert alone in lines and [line.get("text") for line in lines if line != alone] == ["一 two"]


def test_options_that_do_not_fit_are_wrong_usage(
    scripted: Peer, transcribe: Transcribe, tmp_path: Path
) -> None:
    other = str(SAMPLE.with_name("digits_zh.wav"))
    for arguments in (
        [str(SAMPLE), "-o", str(tmp_path / "x.pdf")],
        [str(SAMPLE), other, "-f", "srt"],
        [str(SAMPLE), other, "-o", str(tmp_path / "x.srt")],
        [str(SAMPLE), "--json", "-f", "srt"],
        [str(SAMPLE), "-f", "doc"],
    ):
        code, out, err = transcribe(*arguments)
        assert (code, out) == (EXIT_USAGE, ""), err
    assert not scripted.starts


def options(**changed: Any) -> Options:
    return Options(url="ws://h/ws/asr", **changed)


async def test_without_pyav_an_encoded_file_is_sent_at_once_but_not_paced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "speech.mp3"
    path.write_bytes(b"ID3" + bytes(99_999))
    source = Source(str(path), path.stat().st_size)
    with pytest.raises(UnknownDurationError):
        pieces_of(source, options(realtime=True))
    pieces = [piece async for piece in pieces_of(source, options())]
    assert b"".join(pieces) == path.read_bytes() and len(pieces) > 1


async def test_an_http_source_is_a_url() -> None:
    with pytest.raises(OSError, match="refused"):
        await anext(pieces_of(Source("http://127.0.0.1:1/speech.mp3"), options()))


@pytest.mark.parametrize(
    "statuses, code",
    [
        (["complete"], EXIT_OK),
        (["complete", "busy"], EXIT_BUSY),
        (["busy", "failed"], EXIT_FAILURE),
        (["complete", "incomplete"], EXIT_FAILURE),
        (["failed", "interrupted"], EXIT_INTERRUPTED),
    ],
)
def test_the_exit_code_is_that_of_the_worst_source(statuses: list[Status], code: int) -> None:
    results = [Result(source=Source("a"), status=status) for status in statuses]
    assert exit_code(results, is_cut_short=False, is_some_missing=False) == code
    assert exit_code(results, is_cut_short=True, is_some_missing=True) == EXIT_INTERRUPTED
    complete = [Result(source=Source("a"), status="complete")]
    assert exit_code(complete, is_cut_short=False, is_some_missing=True) == EXIT_FAILURE
