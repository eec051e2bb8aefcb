"""A collector of traces, as far as OTLP over HTTP with JSON goes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class CollectedSpan:
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    status: dict[str, Any]


class Collector(ThreadingHTTPServer):
    """Everything that it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.bodies: list[str] = []
        self.spans: list[CollectedSpan] = []


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:  # the name that the base class looks for
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        right = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json"
        if right:
            self.server.bodies.append(body)
            self.server.spans += spans_in(json.loads(body))
        self.send_response(200 if right else 400)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the tests' standard error."""


def spans_in(body: dict[str, Any]) -> Iterator[CollectedSpan]:
    for of_resource in body["resourceSpans"]:
        resource = _values(of_resource["resource"]["attributes"])
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope["spans"]:
                yield CollectedSpan(
                    service=resource["service.name"],
                    name=span["name"],
                    trace_id=span["traceId"],
                    span_id=span["spanId"],
                    parent_id=span.get("parentSpanId"),
                    start_ns=int(span["startTimeUnixNano"]),
                    end_ns=int(span["endTimeUnixNano"]),
                    attributes=_values(span["attributes"]),
                    status=span.get("status", {}),
                )


def _values(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["key"]: next(iter(entry["value"].values())) for entry in attributes}
