"""``transcribe()`` against a scripted server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

import asr_client
from asr_client.audio import READ_BYTES
from tests.tools.client.scripted import serving


class Peer:
    """Acknowledges every chunk; answers ``finish`` with ``answers``."""

    def __init__(self) -> None:
        self.url = ""
        self.started: dict[str, Any] = {}
        self.audio: list[bytes] = []
        self.answers: list[dict[str, Any]] = []
        self.close_code = 1000

    def talk(self, socket: ServerConnection) -> None:
        for message in socket:
            if isinstance(message, bytes):
                self.audio.append(message)
                index = len(self.audio) - 1
                answers = [{"type": "ack", "status": "received", "chunk_index": index}]
            elif json.loads(message)["action"] == "start":
                self.started = json.loads(message)
                answers = [
                    {
                        "type": "ack",
                        "status": "session_started",
                        "session_id": "s",
                        "resume_token": "t",
                        "next_chunk_index": 0,
                    }
                ]
            else:
                answers = self.answers
            for answer in answers:
                socket.send(json.dumps(answer))
            if answers is self.answers and self.close_code:
                socket.close(self.close_code)


@pytest.fixture
def peer() -> Iterator[Peer]:
    scripted = Peer()
    with serving(scripted.talk) as scripted.url:
        yield scripted


FINAL = {
    "type": "final_result",
    "text": "one",
    "duration": 1.5,
    "chunk_count": 2,
    "stored": True,
}
SEGMENT = {
    "type": "chunk_result",
    "segment_index": 0,
    "chunk_index": 1,
    "start_ms": 100,
    "end_ms": 900,
    "text": "one",
}


def test_a_file_is_sent_whole_and_its_transcript_returned(peer: Peer, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(bytes(range(256)) * 400)
    problem = {"type": "error", "code": "chunk_failed", "message": "", "segment_index": 1}
    peer.answers = [SEGMENT, problem, FINAL]
    transcript = asr_client.transcribe(path, peer.url, language="en", sample_rate_hz=8_000)
    assert b"".join(peer.audio) == path.read_bytes()
    assert max(map(len, peer.audio)) == READ_BYTES
    assert (peer.started["language"], peer.started["sample_rate"]) == ("en", 8_000)
    assert (transcript.text, transcript.duration_s, transcript.stored) == ("one", 1.5, True)
    assert [(s.start_ms, s.end_ms, s.text) for s in transcript.segments] == [(100, 900, "one")]
    assert [problem.code for problem in transcript.problems] == ["chunk_failed"]


def test_a_lost_session_is_raised(peer: Peer, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(b"audio")
    peer.close_code = 1008
    with pytest.raises(asr_client.SessionLostError, match="1008"):
        asr_client.transcribe(path, peer.url)


def test_a_limit_on_the_whole_call(peer: Peer, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(b"audio")
    peer.close_code = 0
    with pytest.raises(TimeoutError):
        asr_client.transcribe(path, peer.url, timeout_s=0.2)


def test_a_missing_file_is_raised_before_connecting() -> None:
    with pytest.raises(FileNotFoundError):
        asr_client.transcribe("/nowhere/at/all.wav", "ws://127.0.0.1:1/ws/asr")
