"""Traces of utterances for an OpenTelemetry collector. Disabled unless ``start`` has an endpoint.

A trace is one utterance. Its id and that of its root span are hashes of session and segment index,
so that every process adds its spans on its own and messages carry no trace context.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runtime.otlp import Exporter

ROOT: Final = "utterance"
"""Name of the root span, the parent of all other spans of its trace."""
FLUSH_S_MAX: Final = 0.3
"""For sending queued spans when the process stops. It comes after the drain time."""

_exporter: Exporter | None = None


def start(process: str, endpoint: str, ratio: float) -> None:
    """Enable tracing for ``ratio`` of the utterances, if ``endpoint`` is a collector's base URL.
    Call ``stop`` when the process ends."""
    global _exporter
    if endpoint and ratio > 0:
        from runtime import otlp

        _exporter = otlp.Exporter(process, endpoint, ratio)


def stop() -> None:
    """Send the queued spans, for ``FLUSH_S_MAX`` at most, and disable tracing."""
    global _exporter
    if _exporter is not None:
        _exporter.shutdown(FLUSH_S_MAX)
        _exporter = None


def on() -> bool:
    """Whether ``record`` has any effect."""
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
    """Record a span of segment ``seq``. Times are monotonic. Never blocks; use it on one thread."""
    if _exporter is None:
        return
    offset_ns = time.time_ns() - time.monotonic_ns()
    start_ns = offset_ns + int(start_s * 1e9)
    root_id = span_id(session_id, seq, ROOT)
    is_root = name == ROOT
    _exporter.record(
        name,
        trace_id=trace_id(session_id, seq),
        span_id=root_id if is_root else span_id(session_id, seq, name, start_ns),
        parent_id=None if is_root else root_id,
        start_ns=start_ns,
        end_ns=offset_ns + int(end_s * 1e9),
        error=error,
        attributes={"session_id": session_id, "segment_index": seq, **attributes},
    )


def trace_id(session_id: str, seq: int) -> int:
    """128-bit id of the trace of segment ``seq``."""
    return _digest(f"{session_id}/{seq}", 16)


def span_id(session_id: str, seq: int, name: str, start_ns: int = 0) -> int:
    """64-bit id of a span. ``start_ns`` distinguishes attempts; the root has none."""
    return _digest(f"{session_id}/{seq}/{name}/{start_ns}", 8)


def _digest(text: str, size_bytes: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size_bytes])
