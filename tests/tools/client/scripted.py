"""A scripted server for the commands: native protocol and REST on one port."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

BUSY = (HTTPStatus.SERVICE_UNAVAILABLE, '{"code":"no_worker","message":"no worker is ready"}')


class Peer:
    """A server that accepts any audio; its answers are set by the test."""

    def __init__(self) -> None:
        self.url = ""
        self.starts: list[dict[str, Any]] = []
        self.audio: list[bytes] = []
        self.got_audio = threading.Event()
        self.problem: dict[str, Any] | None = None
        self.warnings: list[dict[str, str]] = []
        self.duration_s = 1.5
        self.final_warnings: list[dict[str, str]] = []
        self.refusals: list[tuple[HTTPStatus, str]] = []
        """Answers to the next handshakes, which refuse them."""
        self.sessions_max = 99
        self.may_end = threading.Event()
        """Cleared: sessions do not end."""
        self.may_end.set()
        self.refused = 0
        """Handshakes refused by ``refusals`` or ``sessions_max``."""
        self._present = 0
        self.losses = 0
        """Connections that are closed at their first chunk, which is then not received."""
        self.is_finishing = True
        """Whether the final result is sent."""
        self.answer: Callable[[str], Any] = lambda _: None
        """Answer of REST, given the last part of its path: JSON or text; None: 404."""
        self.headers: list[Headers] = []
        self.requests: list[tuple[str, dict[str, list[str]]]] = []

    @property
    def started(self) -> dict[str, Any]:
        return self.starts[-1]

    def talk(self, socket: ServerConnection) -> None:
        try:
            self._talk(socket)
        finally:
            self._present -= 1

    def _talk(self, socket: ServerConnection) -> None:
        chunks = 0
        for message in socket:
            if isinstance(message, bytes):
                if self.losses:
                    self.losses -= 1
                    socket.close(1012)
                    return
                self.audio.append(message)
                self.got_audio.set()
                self._tell(socket, type="ack", status="received", chunk_index=chunks)
                times = {"start_ms": 1000 * chunks, "end_ms": 1000 * chunks + 900}
                self._tell(
                    socket,
                    type="chunk_result",
                    segment_index=chunks,
                    chunk_index=chunks,
                    text=f"segment {chunks}",
                    **times,
                )
                chunks += 1
                continue
            fields = json.loads(message)
            if fields["action"] == "start":
                self.starts.append(fields)
                self._tell(
                    socket,
                    type="ack",
                    status="session_resumed" if "resume_token" in fields else "session_started",
                    session_id=fields["session_id"],
                    resume_token="secret",
                    next_chunk_index=0,
                    warnings=self.warnings,
                )
            elif self.is_finishing:
                self.may_end.wait()
                self._end(socket)

    def _end(self, socket: ServerConnection) -> None:
        if self.problem is not None:
            self._tell(socket, type="error", **self.problem)
        final = {"text": "one two", "duration": self.duration_s, "chunk_count": 1, "stored": True}
        warnings = {"warnings": self.final_warnings} if self.final_warnings else {}
        self._tell(socket, type="final_result", session_id="s", **final, **warnings)

    def _tell(self, socket: ServerConnection, **fields: Any) -> None:
        socket.send(json.dumps(fields))

    def admit(self, socket: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" not in request.headers:
            return self._page(request)
        if not self.refusals and self._present < self.sessions_max:
            self._present += 1
            return None
        self.refused += 1
        status, message = self.refusals.pop(0) if self.refusals else BUSY
        response = socket.respond(status, message)
        response.headers["Retry-After"] = "0.01"
        return response

    def _page(self, request: Request) -> Response:
        self.headers.append(request.headers)
        parts = urlsplit(request.path)
        self.requests.append((parts.path, parse_qs(parts.query)))
        found = self.answer(parts.path.rpartition("/")[2])
        status = HTTPStatus.NOT_FOUND if found is None else HTTPStatus.OK
        body = found if isinstance(found, str) else json.dumps(found)
        headers = Headers([("Content-Length", str(len(body.encode()))), ("Connection", "close")])
        return Response(status, status.phrase, headers, body.encode())


@contextlib.contextmanager
def scripted_server() -> Iterator[Peer]:
    scripted = Peer()
    with serving(scripted.talk, process_request=scripted.admit) as scripted.url:
        yield scripted


@contextlib.contextmanager
def serving(talk: Callable[[ServerConnection], None], **options: Any) -> Iterator[str]:
    """Serve WebSockets by ``talk`` in a thread. Yields the address."""
    with serve(talk, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws/asr"
        server.shutdown()
        thread.join()
