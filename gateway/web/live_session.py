"""A session still in this gateway's hands, in the shape of a stored one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import asdict

from gateway.session.core import Session
from wire.messages import Result


def live_session(session: Session, stored: dict[str, Any] | None) -> dict[str, Any]:
    """``session`` as REST tells it. Chunk details come from ``stored``, since the gateway does
    not keep what it has sent to be stored."""
    delivered = session.delivery.results
    created_at = datetime.fromtimestamp(session.started_at_ms / 1000, UTC).isoformat()
    return {
        "session_id": session.session_id,
        "user_id": session.start.user_id if session.start is not None else "",
        "status": session.state.value,
        "text": session.text,
        "duration": session.duration_ms / 1000,
        "chunk_count": session.chunk_count,
        "segment_count": len(delivered),
        "created_at": created_at,
        "completed_at": None,
        "live": True,
        "segments": [_segment(result) for result in delivered],
        "chunks": stored["chunks"] if stored is not None else [],
    }


def _segment(result: Result) -> dict[str, Any]:
    return {
        "segment_index": result.seq,
        "start_ms": result.start_ms,
        "end_ms": result.end_ms,
        "text": result.text,
        "tokens": [asdict(token) for token in result.tokens],
        "error": asdict(result.error) if result.error is not None else None,
        "worker_id": result.worker_id,
        "attempt": result.attempt,
        "queue_ms": result.queue_ms,
        "infer_ms": result.infer_ms,
    }
