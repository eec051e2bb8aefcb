"""An HTTP server of one file, with faults: it stands for OpenAI's address and for a hub."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast


class FileServer(ThreadingHTTPServer):
    """Serves ``files`` by their paths. The first ``cuts`` answers end after ``cut_bytes``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.cuts = 0
        self.cut_bytes = 0
        self.status = 0
        """Answer of every request; 0: the file."""
        self.knows_ranges = True
        self.requests: list[str] = []
        """Range headers."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = cast(FileServer, self.server)
        wanted = self.headers.get("Range", "")
        server.requests.append(wanted)
        content = server.files.get(self.path)
        if server.status or content is None:
            self.send_error(server.status or 404)
            return
        start = 0
        if wanted and server.knows_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if server.cuts:
            server.cuts -= 1
            self.wfile.write(content[start : start + server.cut_bytes])
            self.close_connection = True
        else:
            self.wfile.write(content[start:])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Steps:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.done: list[tuple[int, int]] = []

    def step(self, what: str) -> None:
        self.steps.append(what)

    def bytes_done(self, done: int, total: int) -> None:
        self.done.append((done, total))
