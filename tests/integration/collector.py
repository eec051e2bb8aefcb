"""A trace collector: the receiving end of OTLP over HTTP with protobuf."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True)
class CollectedSpan:
    service: str
    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    error: str | None
    """Message of the status if its code is ERROR."""


class Collector(ThreadingHTTPServer):
    """Keeps every request and span it receives."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.bodies: list[bytes] = []
        self.status = 200
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

    def do_POST(self) -> None:  # the name that the base class requires
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.status
        if self.path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
            status = 400
        if status == 200:
            self.server.spans += spans_in(body)
            self.server.bodies.append(body)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the tests' standard error."""


def spans_in(body: bytes) -> Iterator[CollectedSpan]:
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _values(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield CollectedSpan(
                    service=resource["service.name"],
                    name=span.name,
                    trace_id=int.from_bytes(span.trace_id),
                    span_id=int.from_bytes(span.span_id),
                    parent_id=int.from_bytes(span.parent_span_id) or None,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_values(span.attributes),
                    error=span.status.message if span.status.code == 2 else None,
                )


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {
        entry.key: getattr(entry.value, entry.value.WhichOneof("value") or "string_value")
        for entry in attributes
    }
