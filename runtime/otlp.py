"""Export of spans by OTLP over HTTP, with opentelemetry-sdk, which takes 0.1 s and several MB to
import: ``runtime.tracing`` imports this module only if a collector is configured."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from runtime.metrics import SPANS, VERSION

SPANS_QUEUED_MAX: Final = 8_192
"""Spans waiting for export. Further spans are dropped and counted."""
SPANS_PER_REQUEST_MAX: Final = 512
EXPORT_INTERVAL_MS: Final = 1_000.0
EXPORT_TIMEOUT_S: Final = 5.0
"""For one request and its retries."""
_SAMPLED: Final = trace.TraceFlags(trace.TraceFlags.SAMPLED)


class Exporter:
    """Queues spans and sends them from a thread. ``record`` never blocks; call it on one thread."""

    def __init__(self, process: str, endpoint: str, ratio: float) -> None:
        """``ratio`` of the traces are sampled, the same ones in every process."""
        self._ids = _PresetIds()
        self._provider = TracerProvider(
            sampler=TraceIdRatioBased(ratio),
            resource=Resource.create(
                {
                    "service.name": f"asr-{process.removeprefix('asr_')}",
                    "service.version": VERSION,
                    "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
                }
            ),
            shutdown_on_exit=False,  # It would wait up to 30 s for an unreachable collector.
            id_generator=self._ids,
        )
        self._requests = _CountedRequests(endpoint.rstrip("/") + "/v1/traces")
        self._queued_total = 0
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._requests,
                max_queue_size=SPANS_QUEUED_MAX,
                schedule_delay_millis=EXPORT_INTERVAL_MS,
                max_export_batch_size=SPANS_PER_REQUEST_MAX,
            )
        )
        self._tracer = self._provider.get_tracer("asr", VERSION)

    def record(
        self,
        name: str,
        *,
        trace_id: int,
        span_id: int,
        parent_id: int | None,
        start_ns: int,
        end_ns: int,
        error: str | None,
        attributes: Mapping[str, str | int],
    ) -> None:
        """Queue one span, if its trace is sampled. Times are Unix times."""
        context = Context()
        if parent_id is not None:
            parent = trace.SpanContext(trace_id, parent_id, is_remote=True, trace_flags=_SAMPLED)
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
        self._ids.trace_id, self._ids.span_id = trace_id, span_id
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=start_ns)
        if not span.is_recording():
            return
        # The SDK's queue would drop the oldest span and not count it.
        if self._queued_total - self._requests.dequeued_total >= SPANS_QUEUED_MAX:
            SPANS.labels("dropped").inc()
            return
        self._queued_total += 1
        if error is not None:
            span.set_status(trace.StatusCode.ERROR, error)
        span.end(end_ns)

    def shutdown(self, timeout_s: float) -> None:
        """Send the queued spans, for ``timeout_s`` at most."""
        flush = threading.Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(timeout_s)


class _PresetIds(IdGenerator):
    """Ids of the next span, set by the caller instead of drawn at random."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _CountedRequests(OTLPSpanExporter):
    """Counts spans by outcome, and logs the first failure in a row; the SDK would log them all."""

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout=EXPORT_TIMEOUT_S)
        self.dequeued_total = 0
        self._url = url
        self._failing = False
        self._log = structlog.get_logger()
        logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.dequeued_total += len(spans)
        result = super().export(spans)
        failed = result is not SpanExportResult.SUCCESS
        SPANS.labels("failed" if failed else "sent").inc(len(spans))
        if failed and not self._failing:
            self._log.warning("trace_export_failed", url=self._url, spans=len(spans))
        self._failing = failed
        return result
