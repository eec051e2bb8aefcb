"""Traces of utterances for whoever collects them by OTLP over HTTP, as OpenTelemetry defines it.

Off unless ``start`` was called with an endpoint, and then ``on()`` is all that it costs. A trace is
one utterance. Its id, and that of its first span, are hashes of session and segment, so that every
process adds its spans by itself and no message between them is the larger for it.

The payload is OTLP's JSON encoding (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"),
which needs no library. A span is sent once: what the collector does not take is counted and gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from runtime.metrics import SPANS, VERSION

SPANS_QUEUED_MAX: Final = 8_192
"""Spans waiting to be sent; one more is dropped and counted."""
SPANS_PER_REQUEST_MAX: Final = 512
SEND_EVERY_S: Final = 1.0
SEND_TIMEOUT_S: Final = 5.0
ROOT: Final = "utterance"
"""The span that the others are part of."""
_INTERNAL: Final = 1
"""SPAN_KIND_INTERNAL."""
_ERROR: Final = 2
"""STATUS_CODE_ERROR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of work on one utterance. ``*_ns`` are Unix times."""

    name: str
    session_id: str
    seq: int
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int]
    error: str | None = None


def trace_id(session_id: str, seq: int) -> str:
    """32 hexadecimal digits."""
    return hashlib.sha256(f"{session_id}/{seq}".encode()).hexdigest()[:32]


def span_id(session_id: str, seq: int, name: str, start_ns: int = 0) -> str:
    """16 hexadecimal digits; other spans than the root may be there more than once."""
    return hashlib.sha256(f"{session_id}/{seq}/{name}/{start_ns}".encode()).hexdigest()[:16]


def is_sampled(session_id: str, seq: int, ratio: float) -> bool:
    """Whether an utterance is among the traced ones: the same everywhere."""
    return int(trace_id(session_id, seq)[:8], 16) < ratio * (1 << 32)


def encoded(span: Span) -> dict[str, Any]:
    """``span`` as OTLP's JSON has it."""
    root = span_id(span.session_id, span.seq, ROOT)
    is_root = span.name == ROOT
    own = root if is_root else span_id(span.session_id, span.seq, span.name, span.start_ns)
    attributes = {"session_id": span.session_id, "segment_index": span.seq, **span.attributes}
    found: dict[str, Any] = {
        "traceId": trace_id(span.session_id, span.seq),
        "spanId": own,
        "name": span.name,
        "kind": _INTERNAL,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(attributes),
    }
    if not is_root:
        found["parentSpanId"] = root
    if span.error is not None:
        found["status"] = {"code": _ERROR, "message": span.error}
    return found


def payload(process: str, spans: list[Span]) -> dict[str, Any]:
    """One request's body."""
    resource = {
        "service.name": f"asr-{process.removeprefix('asr_')}",
        "service.version": VERSION,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    scope = {"name": "asr", "version": VERSION}
    scoped = {"scope": scope, "spans": [encoded(span) for span in spans]}
    return {
        "resourceSpans": [
            {"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scoped]}
        ]
    }


def _attributes(values: Mapping[str, str | int]) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            # 64-bit integers are strings in Protobuf's JSON.
            "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)},
        }
        for key, value in values.items()
    ]


class Exporter:
    """Sends spans from a thread of its own; ``put`` never waits."""

    def __init__(self, process: str, endpoint: str, ratio: float) -> None:
        self._process = process
        self._url = endpoint.rstrip("/") + "/v1/traces"
        self.ratio = ratio
        self._spans: queue.Queue[Span] = queue.Queue(SPANS_QUEUED_MAX)
        self._failing = False
        self._log = structlog.get_logger()

    def start(self) -> None:
        threading.Thread(target=self._run, name="tracing", daemon=True).start()

    def put(self, span: Span) -> None:
        try:
            self._spans.put_nowait(span)
        except queue.Full:
            SPANS.labels("dropped").inc()

    def _run(self) -> None:
        while True:
            time.sleep(SEND_EVERY_S)
            while spans := self._taken():
                self.send(spans)

    def _taken(self) -> list[Span]:
        taken: list[Span] = []
        while len(taken) < SPANS_PER_REQUEST_MAX:
            try:
                taken.append(self._spans.get_nowait())
            except queue.Empty:
                break
        return taken

    def send(self, spans: list[Span]) -> None:
        """One request. A refusal is counted, and logged when it is the first in a row."""
        request = urllib.request.Request(
            self._url,
            json.dumps(payload(self._process, spans)).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=SEND_TIMEOUT_S):
                SPANS.labels("sent").inc(len(spans))
        except (OSError, urllib.error.URLError) as error:
            SPANS.labels("failed").inc(len(spans))
            if not self._failing:
                self._log.warning("traces_not_taken", url=self._url, error=type(error).__name__)
            self._failing = True
        else:
            self._failing = False


_exporter: Exporter | None = None


def start(process: str, endpoint: str, ratio: float) -> None:
    """Trace from now on, if ``endpoint`` names a collector; ``ratio`` of the utterances."""
    global _exporter
    if endpoint and ratio > 0:
        _exporter = Exporter(process, endpoint, ratio)
        _exporter.start()


def on() -> bool:
    """Whether ``record`` does anything."""
    return _exporter is not None


def record(
    name: str,
    session_id: str,
    seq: int,
    *,
    start_s: float,
    end_s: float,
    error: str | None = None,
    **attributes: str | int,
) -> None:
    """A span of this utterance. Times are of the monotonic clock."""
    if _exporter is None or not is_sampled(session_id, seq, _exporter.ratio):
        return
    offset_ns = time.time_ns() - time.monotonic_ns()
    _exporter.put(
        Span(
            name=name,
            session_id=session_id,
            seq=seq,
            start_ns=offset_ns + int(start_s * 1e9),
            end_ns=offset_ns + int(end_s * 1e9),
            attributes=attributes,
            error=error,
        )
    )
