"""``asr transcribe`` against a scripted server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from asr_client.audio import UnknownDurationError
from asr_client.exceptions import RefusedError, UnreachableError
from asr_client.transcribe_command import (
    EXIT_BUSY,
    EXIT_INCOMPLETE,
    Options,
    explain,
    pieces_of,
)

SAMPLE = Path(__file__).parents[3] / "tools" / "samples" / "digits_en.wav"


class Peer:
    """A server that accepts any audio; its answers are set by the test."""

    def __init__(self) -> None:
        self.url = ""
        self.started: dict[str, Any] = {}
        self.audio: list[bytes] = []
        self.got_audio = threading.Event()
        self.problem: dict[str, Any] | None = None
        self.busy = False

    def talk(self, socket: ServerConnection) -> None:
        for message in socket:
            if isinstance(message, bytes):
                self.audio.append(message)
                self.got_audio.set()
                self._tell(socket, type="ack", status="received", chunk_index=len(self.audio) - 1)
                continue
            fields = json.loads(message)
            if fields["action"] == "start":
                self.started = fields
                self._tell(
                    socket,
                    type="ack",
                    status="session_started",
                    session_id=fields["session_id"],
                    resume_token="secret",
                    next_chunk_index=0,
                )
            else:
                self._end(socket)

    def _end(self, socket: ServerConnection) -> None:
        if self.problem is not None:
            self._tell(socket, type="error", **self.problem)
        final = {"text": "one two", "duration": 1.5, "chunk_count": 1, "stored": True}
        self._tell(socket, type="final_result", session_id="s", **final)

    def _tell(self, socket: ServerConnection, **fields: Any) -> None:
        socket.send(json.dumps(fields))

    def admit(self, socket: ServerConnection, _request: Request) -> Response | None:
        if not self.busy:
            return None
        response = socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no worker is ready")
        response.headers["Retry-After"] = "3"
        return response


@pytest.fixture
def peer() -> Iterator[Peer]:
    scripted = Peer()
    with serve(scripted.talk, "127.0.0.1", 0, process_request=scripted.admit) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        scripted.url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws/asr"
        yield scripted
        server.shutdown()
        thread.join()


Command = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def command(peer: Peer) -> Iterator[Command]:
    with contextlib.ExitStack() as running:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", "asr_client", "transcribe", "--url", peer.url, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield start


def test_a_file_is_sent_whole_and_only_its_text_goes_to_stdout(
    peer: Peer, command: Command
) -> None:
    process = command(
        str(SAMPLE), "--speed", "0", "--language", "en", "--chunk-ms", "200", "--no-partials"
    )
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (0, b"one two\n"), stderr
    assert b"".join(peer.audio) == SAMPLE.read_bytes()
    assert len(peer.audio) > 10
    assert {len(piece) for piece in peer.audio[:-1]} == {len(peer.audio[0])}
    assert peer.started["language"] == "en"
    assert peer.started["partials"] is False


def test_mode_chunk_sends_a_file_as_one_chunk(peer: Peer, command: Command) -> None:
    process = command(str(SAMPLE), "--speed", "0", "--mode", "chunk")
    process.communicate()
    assert process.returncode == 0
    assert peer.audio == [SAMPLE.read_bytes()]
    assert peer.started["mode"] == "chunk"


def test_standard_input_is_sent_as_it_arrives(peer: Peer, command: Command) -> None:
    process = command("-")
    assert process.stdin is not None
    process.stdin.write(b"first ")
    process.stdin.flush()
    assert peer.got_audio.wait(30)
    assert peer.audio == [b"first "]
    stdout, stderr = process.communicate(b"second")
    assert (process.returncode, stdout) == (0, b"one two\n"), stderr
    assert peer.audio == [b"first ", b"second"]


def test_an_interrupt_ends_the_audio_and_the_text_is_still_printed(
    peer: Peer, command: Command
) -> None:
    process = command("-")
    assert process.stdin is not None
    process.stdin.write(b"never ending")
    process.stdin.flush()
    assert peer.got_audio.wait(30)
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.read() == b"one two\n"
    assert process.wait() == 0


def test_a_failed_segment_is_shown_by_the_exit_code(peer: Peer, command: Command) -> None:
    peer.problem = {"code": "chunk_failed", "message": "three attempts", "chunk_index": 0}
    process = command(str(SAMPLE), "--speed", "0")
    stdout, stderr = process.communicate()
    assert process.returncode == EXIT_INCOMPLETE
    assert stdout == b"one two\n"
    assert b"error: chunk_failed: three attempts" in stderr


def test_a_busy_server_has_a_distinct_exit_code(peer: Peer, command: Command) -> None:
    peer.busy = True
    process = command(str(SAMPLE))
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (EXIT_BUSY, b"")
    assert stderr == b"error: refused with 503: no worker is ready; try again in 3 s\n"


def test_a_missing_file_is_reported_in_one_line(command: Command) -> None:
    process = command("/nowhere/at/all.wav")
    _, stderr = process.communicate()
    assert process.returncode == EXIT_INCOMPLETE
    assert stderr.count(b"\n") == 1
    assert b"/nowhere/at/all.wav" in stderr


def test_several_files_are_transcribed_in_turn_and_a_missing_one_is_skipped(
    command: Command,
) -> None:
    process = command(str(SAMPLE), "/nowhere/at/all.wav", str(SAMPLE), "--speed", "0")
    stdout, stderr = process.communicate()
    assert process.returncode == EXIT_INCOMPLETE
    assert stdout == b"one two\none two\n"
    assert stderr.count(b"error: ") == 1


def options(**changed: Any) -> Options:
    values: dict[str, Any] = {
        "url": "ws://h/ws/asr",
        "speed": 1.0,
        "partials": True,
        "model": None,
        "speakers": False,
        "language": None,
        "chunk_ms": 100,
        "mode": "auto",
        "rate_hz": 16_000,
        "resume": True,
        "token": None,
    }
    return Options(**{**values, **changed})


@pytest.mark.parametrize(
    "error, remedies",
    [
        (RefusedError(401, "show a token"), ["ASR_TOKEN", "--token"]),
        (RefusedError(403, "Forbidden"), ["--url", "/ws/asr"]),
        (UnreachableError("cannot connect to ws://h"), ["--url", "ASR_URL"]),
        (UnknownDurationError("the duration of a.mp3 is unknown"), ["--speed 0", "[av]"]),
    ],
)
def test_errors_name_the_flag_and_the_remedy(error: Exception, remedies: list[str]) -> None:
    message = explain(error)
    assert message.startswith(str(error).partition(":")[0]) or str(error) in message
    assert all(remedy in message for remedy in remedies)


async def test_without_pyav_an_encoded_file_can_be_sent_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "speech.mp3"
    path.write_bytes(b"ID3" + bytes(9_999))
    with pytest.raises(UnknownDurationError):
        pieces_of(str(path), options())
    pieces = [piece async for piece in pieces_of(str(path), options(speed=0.0))]
    assert b"".join(pieces) == path.read_bytes() and len(pieces) > 1


async def test_an_http_source_is_a_url_and_anything_else_a_file() -> None:
    with pytest.raises(OSError, match="refused"):
        await anext(pieces_of("http://127.0.0.1:1/speech.mp3", options()))
    with pytest.raises(FileNotFoundError):
        pieces_of("ftp://h/speech.mp3", options())
