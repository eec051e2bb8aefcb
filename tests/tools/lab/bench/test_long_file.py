"""The file, and its upload."""

from __future__ import annotations

import io
import json
import threading
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tools.lab.bench.long_file import transcribe, wav_file


class Answer(BaseHTTPRequestHandler):
    received = b""

    def do_POST(self) -> None:
        Answer.received = self.rfile.read(int(self.headers["Content-Length"]))
        text = json.dumps({"segments": [{"start": 1, "text": "a"}, {"start": 2.5, "text": "b"}]})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep test output clean."""


def test_the_file_has_the_length_asked_for() -> None:
    with wave.open(io.BytesIO(wav_file(61))) as file:
        assert file.getnframes() == 61 * 16_000 and file.getframerate() == 16_000


def test_an_upload_returns_its_segments() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        took_s, segments = transcribe(f"http://127.0.0.1:{server.server_port}", b"RIFF-audio")
        server.shutdown()
        thread.join()
    assert took_s > 0 and segments == [(1.0, "a"), (2.5, "b")]
    assert b"RIFF-audio" in Answer.received and b"verbose_json" in Answer.received
